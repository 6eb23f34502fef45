// Page "Data": the batch of a step, and the steps at which a document was read.

const dataSteps = (seen) => {
  const { steps, places } = seen;
  const width = 720, height = 44, x = (step) => 8 + ((width - 16) * (step - 1)) / Math.max(1, steps - 1);
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "data-steps", role: "img", "aria-label": `${plural(places.length, "place")} on the line from step 1 to step ${whole(steps)}` },
    svg("line", { x1: 8, x2: width - 8, y1: 22, y2: 22 }),
    places.map(([step]) => svg("line", { class: "tick", x1: x(step), x2: x(step), y1: 8, y2: 36 })));
};

const dataShowSeen = (place, { document: number, folder }) => context.run(place, async (signal) => {
  if (!source.live) { dataPut(place, dataServed("At which steps it was read")); return; }
  const fields = { document: number, folder };
  let seen = await source.ask("seen", fields, signal);
  if (seen.missing) { dataPut(place, dataNote(seen.missing)); return; }
  const places = [...seen.places];
  let count = seen.count;
  const show = () => dataPut(place, dataSeenTold({ ...seen, places, count }));
  show();
  while (seen.next !== null) {
    seen = await source.ask("seen", { ...fields, step: seen.next }, signal);
    places.push(...seen.places.slice(0, Math.max(0, 1000 - places.length)));
    count += seen.count;
    show();
  }
});

const dataSeenTold = (seen) => {
  if (seen.split === "val") return [h("p", {}, h("strong", {}, "Held out."), " It belongs to the validation split: the model is measured on it and never learns from it.")];
  if (seen.split !== "train") return [h("p", {}, "In neither split: it shares its address or text with a document that is held out, and so the model never read it.")];
  const rounds = seen.in_windows ? seen.count / seen.in_windows : 0;
  const looked = seen.next === null ? "" : ` Looked at the steps up to ${whole(seen.next - 1)} so far.`;
  return [
    h("p", { role: "status" }, `${plural(seen.tokens, "token")}, in ${plural(seen.in_windows, "window")} of ${whole(seen.context_length)} tokens. `,
      seen.count ? `Windows of it come up ${plural(seen.count, "time")} in the ${whole(seen.steps)} steps of the run${seen.next === null ? `, which is ${decimals(rounds, 1)} times for each` : ""}.` : `None of them comes up in the ${whole(seen.steps)} steps of the run: training was over before their turn.`,
      looked, seen.trained < seen.steps ? ` Training has come to step ${whole(seen.trained)}.` : ""),
    seen.count ? dataSteps(seen) : null,
    seen.count ? h("ul", { class: "data-places" }, seen.places.slice(0, 60).map(([step, sequence]) => h("li", {}, dataLink("batch", { batch: step, sequence }, `step ${whole(step)}`)))) : null,
    seen.count > 60 ? dataNote(`The first 60 of ${whole(seen.count)}.`) : null,
    seen.whole ? null : dataNote("There was no time to look at all shards; there may be more."),
  ];
};

// A sequence as a bar: its documents in order, padding at the end.
const dataSequence = (one, length, chosen, choose) => {
  const told = one.documents.map((part) => `${part.url || "document " + whole(part.document)}, ${plural(part.tokens, "token")}`).join("; ");
  return h("li", {}, h("button", {
    type: "button", class: "data-sequence", "aria-pressed": String(chosen), on: { click: choose },
    "aria-label": `Sequence ${one.sequence + 1}: ${plural(one.count, "document")}${one.padding ? ", " + plural(one.padding, "token") + " of padding" : ""}. ${dataPlain(told)}`,
  },
  h("span", { class: "data-index" }, one.sequence + 1),
  h("span", { class: "data-parts" },
    one.documents.map((part, i) => h("span", { class: "part k" + (i % 2), style: { "flex-grow": String(part.tokens) }, title: dataPlain(part.url || "document " + part.document) })),
    one.padding ? h("span", { class: "part padding", style: { "flex-grow": String(one.padding) } }) : null),
  h("bdi", { class: "data-first" }, one.documents.length ? dataPlain(one.documents[0].url || "document " + whole(one.documents[0].document)) + (one.count > 1 ? ` and ${whole(one.count - 1)} more` : "") : "padding")));
};

// Tokens that a token may attend to: earlier ones in the same document.
const dataMask = (segments) => {
  const size = segments.length;
  const blocks = [];
  for (let i = 0, begin = 0; i <= size; i++) {
    if (i === size || (i > 0 && segments[i] !== segments[i - 1])) {
      if (segments[begin]) blocks.push([begin, i]);
      begin = i;
    }
  }
  return h("figure", { class: "data-mask" },
    svg("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": `The mask: ${plural(blocks.length, "triangle")} along the diagonal, one a document` },
      svg("rect", { x: 0, y: 0, width: size, height: size, class: "ground" }),
      blocks.map(([a, b]) => svg("path", { d: `M${a} ${a}V${b}H${b}Z` }))),
    h("figcaption", {}, "The mask of attention. Each row is a token, each column one that it may look at: those before it in the same document, and no other document's."));
};

const dataTokens = (told, sequence) => {
  const text = (id) => told.texts[id];
  const parts = sequence.documents;
  const readout = h("p", { class: "data-readout", role: "status" }, "Choose a token to see what the model is asked to say after it.");
  const strip = tokenStrip("Tokens of the sequence.", told.ids.map((id, i) => ({ text: told.segments[i] ? text(id) : "·" })), {
    decorate: (span, token, i) => {
      const begins = i > 0 && told.segments[i] !== told.segments[i - 1];
      span.classList.add(told.segments[i] ? (told.segments[i] % 2 ? "data-odd" : "data-even") : "data-padding");
      if (begins) span.classList.add("data-begins");
    },
    choose: (i) => {
      if (i < 0) return;
      if (!told.segments[i]) { readout.textContent = `Place ${whole(i + told.first + 1)} is padding: no token, and nothing to learn.`; return; }
      const number = told.documents[told.segments[i] - 1];
      const part = parts[told.segments[i] - 1];
      dataPut(readout, `Place ${whole(i + told.first + 1)}, document ${whole(number)}`, part && part.url ? [" (", dataAddress(part.url, DATA_SHORT), ")"] : "", ": after ", h("code", {}, text(told.ids[i])),
        told.weights[i] ? [" the target is ", h("code", {}, text(told.targets[i])), ", the next token of the text."] : " there is no target: the shard ends here.");
    },
  });
  return [strip, readout];
};

const dataShowBatch = (place, parameters) => context.run(place, async (signal) => {
  const about = await source.ask("batch", {}, signal);
  if (about.missing) { dataPut(place, dataHeading("Batches"), dataNote(about.missing)); return; }
  const result = h("div", {});
  const recorded = [1, about.steps].filter((step, i, all) => all.indexOf(step) === i);
  let step = Math.min(about.steps, Math.max(1, Number(parameters.batch) || 1));
  const stage = () => [...about.stages].reverse().find((one) => one.step <= step);
  let sequence = Math.min(stage().batch_size - 1, Math.max(0, Number(parameters.sequence) || 0));
  let from = sequence - (sequence % 64);
  if (!source.live) { step = recorded.includes(step) ? step : 1; sequence = 0; from = 0; }
  const ask = () => {
    sequence = Math.min(sequence, stage().batch_size - 1);
    from = Math.min(from, sequence - (sequence % 64));
    history.replaceState(null, "", dataHash("batch", { batch: step, sequence: sequence || undefined }));
    return context.run(result, async (inner) => {
      const fields = { step, sequence };
      if (from) fields.offset = from;
      dataBatch(result, await source.ask("batch", fields, inner), about, { choose: (next) => { sequence = next; ask(); }, turn: (next) => { from = next; sequence = next; ask(); } });
    });
  };
  const later = settled(ask, 60);
  const control = source.live
    ? slider("Step", { min: 1, max: about.steps, value: step, show: whole, on: (next) => { step = next; later(); } })
    : h("p", {}, "Recorded: ", recorded.map((one) => [h("button", { type: "button", on: { click: () => { step = one; sequence = 0; ask(); } } }, `step ${whole(one)}`), " "]));
  dataPut(place,
    dataHeading("Batches"),
    h("p", {}, `At each of its ${whole(about.steps)} steps the model reads ${about.stages.map((one) => `${about.stages.length > 1 ? `from step ${whole(one.step)} on ` : ""}${plural(one.batch_size, "sequence")}${one.parts > 1 ? `, each cut into ${one.parts} parts that do not see one another,` : ""}`).join(", ")} of ${whole(about.context_length)} tokens. Which ones follows from the seed alone, so that this page works it out again, without a log.`),
    control, result);
  await ask();
});

const dataBatch = (result, told, about, { choose, turn }) => {
  const chosen = told.sequences.find((one) => one.sequence === told.sequence.sequence);
  const [first, last] = told.epochs;
  const keep = result.contains(document.activeElement) ? document.activeElement.getAttribute("data-index") : null;
  const live = source.live;
  const list = h("ol", { class: "data-sequences" }, told.sequences.map((one) => dataSequence(one, about.context_length, one === chosen, () => { if (live) choose(one.sequence); })));
  list.querySelectorAll("button").forEach((button, i) => { button.dataset.index = told.sequences[i].sequence; if (!live) button.disabled = told.sequences[i] !== chosen; });
  const pager = told.sequences.length < told.batch_size && live
    ? h("div", { class: "data-pager" },
      h("button", { type: "button", disabled: told.offset === 0, on: { click: () => turn(Math.max(0, told.offset - 64)) } }, "Earlier sequences"),
      h("button", { type: "button", disabled: told.offset + told.sequences.length >= told.batch_size, on: { click: () => turn(told.offset + told.sequences.length) } }, "Later sequences"))
    : null;
  dataPut(result,
    dataNote(first === last ? `Epoch ${whole(first)}: all windows are read once an epoch.` : `Epochs ${whole(first)} and ${whole(last)} meet in this batch.`, told.folders.length > 1 ? ` A mixture of ${told.folders.length} folders: ${told.folders.map((one) => `${dataPlain(one.name)} (${percent(one.share)})`).join(", ")}.` : "", dataToCome(told) ? " The run has not come to this step yet." : ""),
    list, pager,
    chosen ? h("h3", {}, `Sequence ${whole(chosen.sequence + 1)}`) : null,
    chosen ? h("ul", { class: "data-list data-members" }, chosen.documents.map((part) => h("li", {}, dataMember(part, told.folders[chosen.folder], chosen.folder), h("span", { class: "data-meta" }, `document ${whole(part.document)} · ${plural(part.tokens, "token")} from place ${whole(part.begin + 1)}`)))) : null,
    chosen && chosen.count > chosen.documents.length ? dataNote(`The first ${chosen.documents.length} of ${plural(chosen.count, "document")}.`) : null,
    chosen ? h("div", { class: "data-reading" }, h("div", {}, dataTokens(told.sequence, chosen), dataNote(`Tokens in order; a line and another ground mark where a new document begins. ${plural(chosen.targets, "place")} have a target: the token that follows, so the targets are the inputs shifted by one.`, told.sequence.ids.length < told.sequence.tokens ? ` The first ${whole(told.sequence.ids.length)} of ${whole(told.sequence.tokens)} places.` : "")), dataMask(told.sequence.segments)) : null,
  );
  if (keep !== null) result.querySelector(`button[data-index="${keep}"]`)?.focus();
};

const dataToCome = (told) => told.step > told.trained;

// Documents of this run can be opened; of another run's shards only the number is known.
const dataMember = (part, folder, index) => {
  const name = part.url ? dataAddress(part.url, DATA_SHORT) : `document ${whole(part.document)}`;
  return folder.own && source.live ? dataLink("document", { number: part.document }, name) : h("span", {}, name, folder.own ? "" : ` (folder ${index + 1})`);
};

dataViews.batch = ["Batches", dataShowBatch];

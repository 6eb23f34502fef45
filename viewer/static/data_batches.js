// Page "Data": the batch of a step, and the steps at which a document was read.

const dataSteps = (seen) => {
  const { steps, places } = seen;
  const width = 720, height = 44, x = (step) => 8 + ((width - 16) * (step - 1)) / Math.max(1, steps - 1);
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "data-steps", role: "img", "aria-label": `${plural(places.length, "step")} between step 1 and step ${whole(steps)}` },
    svg("line", { x1: 8, x2: width - 8, y1: 22, y2: 22 }),
    places.map(([step]) => svg("line", { class: "tick", x1: x(step), x2: x(step), y1: 8, y2: 36 })));
};

const dataShowSeen = (place, { document: number, folder }) => context.run(place, async (signal) => {
  if (!source.live) { put(place, servedNote("The steps at which it was read were not recorded.")); return; }
  const fields = { document: number, folder };
  let seen = await source.ask("seen", fields, signal);
  if (seen.missing) { put(place, note(seen.missing)); return; }
  const places = [...seen.places];
  let count = seen.count;
  const show = () => put(place, dataSeenText({ ...seen, places, count }));
  show();
  while (seen.next !== null) {
    seen = await source.ask("seen", { ...fields, step: seen.next }, signal);
    places.push(...seen.places.slice(0, Math.max(0, 1000 - places.length)));
    count += seen.count;
    show();
  }
});

const dataSeenText = (seen) => {
  if (seen.split === "val") return [h("p", {}, h("strong", {}, "Held out."), " It is in the validation split: the model is evaluated on it, and not trained on it.")];
  if (seen.split !== "train") return [h("p", {}, "In neither split: it shares its URL or text with a held-out document, so the model was not trained on it.")];
  const rounds = seen.in_windows ? seen.count / seen.in_windows : 0;
  const looked = seen.next === null ? "" : ` Steps up to ${whole(seen.next - 1)} searched so far.`;
  return [
    h("p", { role: "status" }, `${plural(seen.tokens, "token")}, in ${plural(seen.in_windows, "window")} of ${whole(seen.context_length)} tokens. `,
      seen.count ? `Its windows were in a batch ${plural(seen.count, "time")} in the ${whole(seen.steps)} steps of the run${seen.next === null ? `, ${decimals(rounds, 1)} times each` : ""}.` : `None of them is in a batch of the ${whole(seen.steps)} steps of the run.`,
      looked, seen.trained < seen.steps ? ` Training is at step ${whole(seen.trained)}.` : ""),
    seen.count ? dataSteps(seen) : null,
    seen.count ? h("ul", { class: "data-places" }, seen.places.slice(0, 60).map(([step, sequence]) => h("li", {}, dataLink("batch", { batch: step, sequence }, `step ${whole(step)}`)))) : null,
    seen.count > 60 ? note(`The first 60 of ${whole(seen.count)}.`) : null,
    seen.whole ? null : note("Not all shards were searched in time; there may be more."),
  ];
};

// A sequence as a bar: its documents in order, padding at the end.
const dataSequence = (one, chosen, choose) => {
  const names = one.documents.map((part) => `${part.url || "document " + whole(part.document)}, ${plural(part.tokens, "token")}`).join("; ");
  return h("li", {}, h("button", {
    type: "button", class: "data-sequence", "aria-pressed": String(chosen), on: { click: choose },
    "aria-label": `Sequence ${one.sequence + 1}: ${plural(one.count, "document")}${one.padding ? ", " + plural(one.padding, "token") + " of padding" : ""}. ${plainText(names)}`,
  },
  h("span", { class: "data-index" }, one.sequence + 1),
  h("span", { class: "data-parts" },
    one.documents.map((part, i) => h("span", { class: "part k" + (i % 2), style: { "flex-grow": String(part.tokens) }, title: plainText(part.url || "document " + part.document) })),
    one.padding ? h("span", { class: "part padding", style: { "flex-grow": String(one.padding) } }) : null),
  h("bdi", { class: "data-first" }, one.documents.length ? plainText(one.documents[0].url || "document " + whole(one.documents[0].document)) + (one.count > 1 ? ` and ${whole(one.count - 1)} more` : "") : "padding")));
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
    svg("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": `Attention mask: ${plural(blocks.length, "triangle")} along the diagonal, one per document` },
      svg("rect", { x: 0, y: 0, width: size, height: size, class: "ground" }),
      blocks.map(([a, b]) => svg("path", { d: `M${a} ${a}V${b}H${b}Z` }))),
    h("figcaption", {}, "Attention mask. Each row is a token, each column a token that it may attend to: itself and earlier ones in the same document."));
};

const dataTokens = (batch, sequence) => {
  const text = (id) => batch.texts[id];
  const parts = sequence.documents;
  const readout = h("p", { class: "data-readout", role: "status" }, "Choose a token to see the target after it.");
  const strip = tokenStrip("Tokens of the sequence.", batch.ids.map((id, i) => ({ text: batch.segments[i] ? text(id) : "·" })), {
    decorate: (span, _, i) => {
      const begins = i > 0 && batch.segments[i] !== batch.segments[i - 1];
      span.classList.add(batch.segments[i] ? (batch.segments[i] % 2 ? "data-odd" : "data-even") : "data-padding");
      if (begins) span.classList.add("data-begins");
    },
    choose: (i) => {
      if (i < 0) return;
      if (!batch.segments[i]) { readout.textContent = `Position ${whole(i + batch.first + 1)} is padding.`; return; }
      const number = batch.documents[batch.segments[i] - 1];
      const part = parts[batch.segments[i] - 1];
      put(readout, `Position ${whole(i + batch.first + 1)}, document ${whole(number)}`, part?.url ? [" (", dataAddress(part.url, DATA_SHORT), ")"] : "", ": after ", h("code", {}, text(batch.ids[i])),
        batch.weights[i] ? [" the target is ", h("code", {}, text(batch.targets[i])), ", the next token."] : " there is no target: padding or the end of the shard follows.");
    },
  });
  return [strip, readout];
};

const dataShowBatch = (place, parameters) => context.run(place, async (signal) => {
  const about = await source.ask("batch", {}, signal);
  if (about.missing) { put(place, dataHeading("Batches"), note(about.missing)); return; }
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
      dataBatch(result, await source.ask("batch", fields, inner), { choose: (next) => { sequence = next; ask(); }, turn: (next) => { from = next; sequence = next; ask(); } });
    });
  };
  const later = settled(ask, 60);
  const control = source.live
    ? slider("Step", { min: 1, max: about.steps, value: step, show: whole, on: (next) => { step = next; later(); } })
    : h("p", {}, "Recorded: ", recorded.map((one) => [h("button", { type: "button", on: { click: () => { step = one; sequence = 0; ask(); } } }, `step ${whole(one)}`), " "]));
  put(place,
    dataHeading("Batches"),
    h("p", {}, `In each of ${whole(about.steps)} steps the model reads ${about.stages.map((one) => `${about.stages.length > 1 ? `from step ${whole(one.step)}: ` : ""}${plural(one.batch_size, "sequence")}${one.parts > 1 ? `, each split into ${one.parts} independent parts,` : ""}`).join(", ")} of ${whole(about.context_length)} tokens. The batch of a step depends only on the shards, the seed and the step.`),
    control, result);
  await ask();
});

const dataBatch = (result, batch, { choose, turn }) => {
  const chosen = batch.sequences.find((one) => one.sequence === batch.sequence.sequence);
  const [first, last] = batch.epochs;
  const keep = result.contains(document.activeElement) ? document.activeElement.getAttribute("data-index") : null;
  const live = source.live;
  const list = h("ol", { class: "data-sequences" }, batch.sequences.map((one) => dataSequence(one, one === chosen, () => { if (live) choose(one.sequence); })));
  list.querySelectorAll("button").forEach((button, i) => { button.dataset.index = batch.sequences[i].sequence; if (!live) button.disabled = batch.sequences[i] !== chosen; });
  const pager = batch.sequences.length < batch.batch_size && live
    ? h("div", { class: "data-pager" },
      h("button", { type: "button", disabled: batch.offset === 0, on: { click: () => turn(Math.max(0, batch.offset - 64)) } }, "Previous sequences"),
      h("button", { type: "button", disabled: batch.offset + batch.sequences.length >= batch.batch_size, on: { click: () => turn(batch.offset + batch.sequences.length) } }, "Next sequences"))
    : null;
  put(result,
    note(first === last ? `Epoch ${whole(first)}.` : `The end of epoch ${whole(first)} and the start of epoch ${whole(last)}.`, batch.folders.length > 1 ? ` A mixture of ${batch.folders.length} folders: ${batch.folders.map((one) => `${plainText(one.name)} (${percent(one.share)})`).join(", ")}.` : "", batch.step > batch.trained ? " The run has not reached this step." : ""),
    list, pager,
    chosen ? h("h3", {}, `Sequence ${whole(chosen.sequence + 1)}`) : null,
    chosen ? h("ul", { class: "data-list data-members" }, chosen.documents.map((part) => h("li", {}, dataMember(part, batch.folders[chosen.folder], chosen.folder), h("span", { class: "data-meta" }, `document ${whole(part.document)} · ${plural(part.tokens, "token")} from position ${whole(part.begin + 1)}`)))) : null,
    chosen && chosen.count > chosen.documents.length ? note(`The first ${chosen.documents.length} of ${plural(chosen.count, "document")}.`) : null,
    chosen ? h("div", { class: "data-reading" }, h("div", {}, dataTokens(batch.sequence, chosen), note(`Tokens in order; a line marks the start of a document. ${plural(chosen.targets, "position")} have a target, the next token.`, batch.sequence.ids.length < batch.sequence.tokens ? ` The first ${whole(batch.sequence.ids.length)} of ${whole(batch.sequence.tokens)} positions.` : "")), dataMask(batch.sequence.segments)) : null,
  );
  if (keep !== null) result.querySelector(`button[data-index="${keep}"]`)?.focus();
};

// Documents of this run can be opened; of another run's shards only the number is known.
const dataMember = (part, folder, index) => {
  const name = part.url ? dataAddress(part.url, DATA_SHORT) : `document ${whole(part.document)}`;
  return folder.own && source.live ? dataLink("document", { number: part.document }, name) : h("span", {}, name, folder.own ? "" : ` (folder ${index + 1})`);
};

dataViews.batch = ["Batches", dataShowBatch];

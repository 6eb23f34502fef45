// The page "Recite and trace": origins of a text, and memorization.

const traceNamesOf = (name) => (recorded ? Object.keys(recorded).filter((key) => key.startsWith(name + "{")) : []);
const traceFieldsOf = (name) => traceNamesOf(name).map((key) => JSON.parse(key.slice(name.length)));
const traceSection = (id, title, ...children) => h("div", { class: "trace-section", role: "region", "aria-labelledby": id }, h("h2", { id }, title), children);
const traceMost = { characters: 20000 };

// Search: occurrences of a text by split, and its documents.
const traceSearch = (parameters) => {
  const place = h("div", { "aria-live": "polite" });
  const field = h("input", { type: "search", id: "trace-query", maxlength: 2000, dir: "auto", autocomplete: "off", spellcheck: false, value: parameters.search || "" });
  const show = (text) => context.run(place, async (signal) => {
    if (!text) { place.replaceChildren(); return; }
    const found = await source.ask("search", { text }, signal);
    const [[first, count], ...others] = Object.entries(found.counts);
    const said = (split, times) => `${times === 0 ? "nowhere" : plural(times, "time")} in the ${traceSplits[split] || split}`;
    place.replaceChildren(...[
      h("p", {}, h("q", { dir: "auto" }, traceShow(text.slice(0, 200))), " stands ", h("strong", {}, said(first, count)), others.map(([split, times]) => " and " + said(split, times)), `. Looked up in ${decimals(1000 * found.seconds, 1)} ms.`),
      traceDocuments(found.documents, Object.values(found.counts).reduce((a, b) => a + b, 0))].flat().filter(Boolean));
  });
  const ask = (event) => {
    event.preventDefault();
    history.replaceState(null, "", address("trace", { ...pageParameters(), search: field.value }));
    show(field.value);
  };
  const known = traceFieldsOf("search").map((fields) => fields.text);
  const form = source.live
    ? h("form", { class: "trace-form", role: "search", on: { submit: ask } }, h("label", { for: "trace-query" }, "Any text, as it stands in a document"), field, h("button", {}, "Search"))
    : h("p", { class: "trace-form" }, known.map((text) => h("button", { type: "button", on: { click: () => show(text) } }, traceShow(text))));
  if (parameters.search && source.has("search", { text: parameters.search })) show(parameters.search);
  return traceSection("trace-search", "Search the training text",
    h("p", {}, "How often do these words stand in what the model was fed, and where? Capitals, blanks and signs count, and the last word must be whole."),
    source.live ? null : traceNote("Looked up when this page was made. Any other text: ", h("code", {}, serveCommand()), "."), form, place);
};

// Trace: passages of a text that occur in the training text.
const traceTrace = () => {
  const [place, status, passage, side] = [h("div", { class: "split trace-result" }), h("p", { class: "trace-note", role: "status" }), h("div"), h("div", { "aria-live": "polite" })];
  const left = h("div", {}, status, passage);
  const room = Math.max(4, Math.min(256, Math.floor(context.model.context_length / 2)));
  const settings = { tokens: Math.min(100, room), temperature: 0.8 };
  const ask = async (text, start, signal) => {
    place.replaceChildren(left, side); // an error may have replaced them
    const found = await source.ask("trace", { text, start: [...text.slice(0, start)].length }, signal);
    const choose = (number) => {
      box.show(number);
      for (const [index, row] of rows.entries()) row.querySelector("button").setAttribute("aria-pressed", String(index === number));
      const span = found.spans[number];
      side.replaceChildren(...[h("h3", {}, `${plural(span.count, "place")} in the training text`), traceDocuments(span.documents, span.count)].flat(2).filter(Boolean));
    };
    const box = tracePassage("The text; passages that stand in the training text are marked.", found.parts, found.spans, start, choose);
    const rows = found.spans.map((span, number) => h("li", {}, h("button", { type: "button", "aria-pressed": "false", on: { click: () => choose(number) } }, h("q", { dir: "auto" }, traceShow(span.text))), h("span", {}, ` ${plural(span.end - span.start, "token")}, ${plural(span.count, "place")}`)));
    passage.replaceChildren(box, ...(rows.length ? [h("ol", { class: "trace-spans" }, rows)] : []));
    status.textContent = rows.length ? `${plural(rows.length, "passage")} of ${plural(found.tokens - found.prompt_tokens, "new token")} stand in the training text word for word.` : "No passage of it is both rare enough and in the training text.";
    if (rows.length) choose(found.spans.reduce((best, span, number) => (span.bits > found.spans[best].bits ? number : best), 0));
    else side.replaceChildren();
  };
  const write = () => context.run(place, async (signal) => {
    const prompt = shared.text;
    let text = prompt;
    place.replaceChildren(left, side);
    side.replaceChildren();
    status.textContent = "The model writes …";
    const draft = h("div", { class: "trace-passage", dir: "auto" });
    passage.replaceChildren(draft);
    for await (const choice of source.complete({ prompt, max_tokens: settings.tokens, temperature: settings.temperature }, signal)) {
      text += choice.text;
      draft.replaceChildren(h("span", { class: "trace-prompt" }, traceShow(prompt)), traceShow(text.slice(prompt.length)));
    }
    await ask(text, prompt.length, signal);
  });
  const stop = () => { context.cancel(place); status.textContent = "Stopped."; place.removeAttribute("aria-busy"); };
  place.append(left, side);
  const choices = traceNamesOf("trace").map((key, number) => h("button", { type: "button", on: { click: () => context.run(place, (signal) => { const { text, start } = JSON.parse(key.slice("trace".length)); return ask(text, [...text].slice(0, start).join("").length, signal); }) } }, `Sample ${number + 1}`));
  const controls = source.live
    ? [promptBox("The beginning of a text", () => {}),
      slider("New tokens", { min: 4, max: room, value: settings.tokens, on: (value) => { settings.tokens = value; } }),
      slider("Temperature", { min: 0, max: 1.5, step: 0.1, value: settings.temperature, show: (value) => value.toFixed(1), on: (value) => { settings.temperature = value; } }),
      h("p", { class: "trace-form" }, h("button", { type: "button", on: { click: write } }, "Write on and trace"), h("button", { type: "button", on: { click: () => context.run(place, (signal) => ask(shared.text, 0, signal)) } }, "Trace the text as it is"), h("button", { type: "button", on: { click: stop } }, "Stop"))]
    : [traceNote("The samples of the report, traced when this page was made. New texts need the served page: ", h("code", {}, serveCommand()), "."), h("p", { class: "trace-form" }, choices)];
  if (choices.length) queueMicrotask(() => choices[0].click());
  return traceSection("trace-trace", "Where does an answer come from?",
    h("p", {}, "The model writes on, and each passage that stands word for word in its training text is marked: the longest ones whose words are rarest together, found ten times at most. Choose one to read the documents that it stands in. That it stands there does not prove that the model has it from there."),
    controls, place);
};

// Memorization: documents of both splits, one request each.
const traceRecite = (about) => {
  const [status, result, shown] = [h("p", { class: "trace-note", role: "status" }), h("div"), h("div", { "aria-live": "polite" })];
  const place = h("div", {}, status, result);
  const splits = Object.keys(about.splits);
  const recordedOf = traceFieldsOf("recite")[0]?.of;
  let of = 16;
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const draw = (found) => {
    const at = (split, prefix) => found.filter((one) => one.split === split).flatMap((one) => one.prefixes.filter((row) => row.prefix === prefix));
    const prefixes = [...new Set(found.flatMap((one) => one.prefixes.map((row) => row.prefix)))].sort((a, b) => a - b);
    const share = (rows) => mean(rows.map((row) => row.right / row.next));
    const lines = splits.map((split) => ({ label: split === "train" ? "trained on" : "never seen", points: prefixes.filter((prefix) => at(split, prefix).length).map((prefix) => [prefix, share(at(split, prefix))]) }));
    const cells = (rows) => (rows.length ? [percent(share(rows)), decimals(mean(rows.map((row) => row.verbatim)), 1), whole(Math.max(...rows.map((row) => row.verbatim)))] : ["–", "–", "–"]);
    const heads = ["next right", "mean run", "longest run"];
    const table = h("table", {}, h("caption", {}, `${about.next} next tokens; a run is how many the model writes word for word before it departs.`),
      h("thead", {}, h("tr", {}, h("th", { rowspan: 2, scope: "col" }, "given"), splits.map((split) => h("th", { colspan: 3, scope: "colgroup" }, traceSplits[split] || split))), h("tr", {}, splits.flatMap(() => heads.map((head) => h("th", { scope: "col" }, head))))),
      h("tbody", {}, prefixes.map((prefix) => h("tr", {}, h("th", { scope: "row" }, whole(prefix)), splits.flatMap((split) => cells(at(split, prefix)).map((cell) => h("td", {}, cell)))))));
    const longest = (one) => Math.max(...one.prefixes.map((row) => row.verbatim));
    const best = found.filter((one) => one.prefixes.length).sort((a, b) => longest(b) - longest(a)).slice(0, 8);
    const list = h("ol", { class: "trace-spans" }, best.map((one) => h("li", {}, h("button", { type: "button", on: { click: () => showDocument(one) } }, h("bdi", { class: "url" }, traceShow(one.document.url || one.document.id))), h("span", {}, ` ${traceSplits[one.split] || one.split}, longest run ${plural(longest(one), "token")}`))));
    result.replaceChildren(traceChart(lines), h("div", { class: "trace-scroll", tabindex: "0", role: "region", "aria-label": "The figures of the chart" }, table), h("h3", {}, "Known best"), list, shown);
  };
  const showDocument = (one) => {
    const told = h("p", { class: "trace-note", "aria-live": "polite" }, "Underlined: the likeliest token behind all before it, so that the model would write it. Look at another to see what it would rather write.");
    const strip = tokenStrip("The document.", one.tokens, {
      decorate: (span, token) => span.classList.add(token.right ? "trace-right" : "trace-wrong"),
      choose: (index) => { const token = one.tokens[index]; if (token) told.textContent = token.right ? `${token.text}: the model would write it.` : `${token.text}: the model would write ${token.said}.`; },
    });
    shown.replaceChildren(h("h3", {}, traceAddress(one.document), traceOf(one.document)), told, strip);
  };
  const begin = () => context.run(place, async (signal) => {
    const found = [];
    const count = source.live ? of : recordedOf;
    place.replaceChildren(status, result);
    shown.replaceChildren();
    for (let number = 0; number < count; number++) {
      for (const split of splits) {
        const fields = { split, document: number, of: count, step: source.live ? shared.step : null };
        if (!source.has("recite", fields)) continue;
        const one = await source.ask("recite", fields, signal);
        if (one.document) found.push(one);
        status.textContent = `${plural(found.length, "document")} read.`;
      }
      if (found.length && (number % 4 === 3 || number === count - 1)) draw(found);
    }
    if (!found.length) status.textContent = "No document is long enough.";
  });
  const stop = () => { context.cancel(place); place.removeAttribute("aria-busy"); };
  const controls = source.live
    ? [slider("Documents of each", { min: 4, max: 64, step: 4, value: of, on: (value) => { of = value; } }), h("p", { class: "trace-form" }, h("button", { type: "button", on: { click: begin } }, "Let it recite"), h("button", { type: "button", on: { click: stop } }, "Stop"))]
    : recordedOf ? traceNote(`${plural(recordedOf, "document")} of each, read when this page was made.`) : traceNote("This needs the served page: ", h("code", {}, serveCommand()), ".");
  if (!source.live && recordedOf) queueMicrotask(begin);
  return traceSection("trace-recite", "What does it know by heart?",
    h("p", {}, "Given the first tokens of a document, does the model go on with it word for word? Documents that it was trained on stand beside documents that it never saw. Where the first are recited better, it remembers them; where both are alike, it has learnt the language and not the text."),
    about.prefixes.length ? [controls, place] : traceNote(`The model reads ${plural(context.model.context_length, "token")} at a time, too few for this.`));
};

pages.push({
  id: "trace",
  title: "Recite and trace",
  about: "Where the model's words stand in the text that it was trained on, how much of that text it knows by heart, and whether a test stands in it.",
  mount(root, context, parameters) {
    const place = h("div");
    root.append(place);
    let write = null;
    context.run(place, async (signal) => {
      if (!source.has("corpus")) { place.replaceChildren(traceNote("Nothing of this was recorded. The served page has it: ", h("code", {}, serveCommand()), ".")); return; }
      const about = await source.ask("corpus", {}, signal);
      if (!about.made) {
        place.replaceChildren(h("div", { class: "panel" }, h("h2", {}, about.shards ? "The training text is not indexed" : "The training text is not here"), h("p", {}, traceShow(about.message)), about.shards && traceNote("The index is made once, from the token shards of the run: some seconds for each million tokens, 6 bytes a token. Then open this page again.")));
        return;
      }
      const size = Object.entries(about.splits).map(([split, one]) => `${whole(one.tokens)} tokens of ${plural(one.documents, "document")} (${traceSplits[split] || split})`).join(" and ");
      const step = shared.step ?? context.model.step;
      const after = Math.max(1, about.epochs.findIndex(([at]) => at >= step)), last = about.epochs.length - 1;
      const [[from, low], [to, high]] = step > about.epochs[last][0] ? about.epochs.slice(-2) : about.epochs.slice(after - 1, after + 1);
      const epochs = low + (step - from) * (high - low) / (to - from);
      const read = epochs ? ` Up to step ${whole(step)} the model has read ${epochs < 0.995 ? `about ${percent(epochs)} of the training text` : `the training text about ${decimals(epochs, 1)} times`}.` : "";
      const others = about.sources.length ? `; with the shards of ${about.sources.map(traceShow).join(", ")}` : "";
      place.replaceChildren(traceNote(`Indexed: ${size}${others}.${read}`), traceSearch(parameters), traceTrace(), traceRecite(about), traceContamination(about, parameters));
      write = place.querySelector("#prompt");
    });
    return { update(changed) { if (changed.includes("text") && write && document.activeElement !== write) write.value = shared.text; } };
  },
});

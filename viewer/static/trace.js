// The page "Memorization": passages of a text in the training text, and verbatim continuations.

const traceNamesOf = (name) => (recorded ? Object.keys(recorded).filter((key) => key.startsWith(name + "{")) : []);
const traceFieldsOf = (name) => traceNamesOf(name).map((key) => JSON.parse(key.slice(name.length)));
const traceSection = (id, title, ...children) => h("div", { class: "trace-section", role: "region", "aria-labelledby": id }, h("h2", { id }, title), children);

// Search: occurrences of a text by split, and its documents.
const traceSearch = (parameters) => {
  const place = h("div", { "aria-live": "polite" });
  const field = h("input", { type: "search", id: "trace-query", maxlength: 2000, dir: "auto", autocomplete: "off", spellcheck: false, value: parameters.search || "" });
  const show = (text) => context.run(place, async (signal) => {
    if (!text) { place.replaceChildren(); return; }
    const found = await source.ask("search", { text }, signal);
    const [[first, count], ...others] = Object.entries(found.counts);
    const said = (split, times) => `${plural(times, "time")} in the ${traceSplits[split] || split}`;
    place.replaceChildren(...[
      h("p", {}, h("q", { dir: "auto" }, plainText(text.slice(0, 200))), " occurs ", h("strong", {}, said(first, count)), others.map(([split, times]) => " and " + said(split, times)), ` (${decimals(1000 * found.seconds, 1)} ms).`),
      traceDocuments(found.documents, Object.values(found.counts).reduce((a, b) => a + b, 0))].flat().filter(Boolean));
  });
  const ask = (event) => {
    event.preventDefault();
    history.replaceState(null, "", address("trace", { ...pageParameters(), search: field.value }));
    show(field.value);
  };
  const known = traceFieldsOf("search").map((fields) => fields.text);
  const form = source.live
    ? h("form", { class: "trace-form", role: "search", on: { submit: ask } }, h("label", { for: "trace-query" }, "Text to find, exactly as in a document"), field, h("button", {}, "Search"))
    : h("p", { class: "trace-form" }, known.map((text) => h("button", { type: "button", on: { click: () => show(text) } }, plainText(text))));
  if (parameters.search && source.has("search", { text: parameters.search })) show(parameters.search);
  return traceSection("trace-search", "Search the training text",
    h("p", {}, "How often does a text occur in the training data, and in which documents? Case, spaces and punctuation count, and the last word must be complete."),
    source.live ? null : servedNote("Recorded searches."), form, place);
};

// Trace: passages of a text that occur in the training text.
const traceTrace = () => {
  const [place, status, passage, side] = [h("div", { class: "split trace-result" }), h("p", { class: "note", role: "status" }), h("div"), h("div", { "aria-live": "polite" })];
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
      side.replaceChildren(...[h("h3", {}, `${plural(span.count, "occurrence")} in the training text`), traceDocuments(span.documents, span.count)].flat(2).filter(Boolean));
    };
    const box = tracePassage("The text; passages from the training text are marked.", found.parts, found.spans, start, choose);
    const rows = found.spans.map((span, number) => h("li", {}, h("button", { type: "button", "aria-pressed": "false", on: { click: () => choose(number) } }, h("q", { dir: "auto" }, plainText(span.text))), h("span", {}, ` ${plural(span.end - span.start, "token")}, ${plural(span.count, "occurrence")}`)));
    passage.replaceChildren(box, ...(rows.length ? [h("ol", { class: "trace-spans" }, rows)] : []));
    status.textContent = rows.length ? `${plural(rows.length, "passage")} in ${plural(found.tokens - found.prompt_tokens, "generated token")} occur verbatim in the training text.` : "No passage is both in the training text and rare enough.";
    if (rows.length) choose(found.spans.reduce((best, span, number) => (span.bits > found.spans[best].bits ? number : best), 0));
    else side.replaceChildren();
  };
  const write = () => context.run(place, async (signal) => {
    const prompt = shared.text;
    let text = prompt;
    place.replaceChildren(left, side);
    side.replaceChildren();
    status.textContent = "Generating …";
    const draft = h("div", { class: "trace-passage", dir: "auto" });
    passage.replaceChildren(draft);
    for await (const choice of source.complete({ prompt, max_tokens: settings.tokens, temperature: settings.temperature }, signal)) {
      text += choice.text;
      draft.replaceChildren(h("span", { class: "trace-prompt" }, plainText(prompt)), plainText(text.slice(prompt.length)));
    }
    await ask(text, prompt.length, signal);
  });
  const stop = () => { context.cancel(place); status.textContent = "Stopped."; place.removeAttribute("aria-busy"); };
  place.append(left, side);
  const choices = traceNamesOf("trace").map((key, number) => h("button", { type: "button", on: { click: () => context.run(place, (signal) => { const { text, start } = JSON.parse(key.slice("trace".length)); return ask(text, [...text].slice(0, start).join("").length, signal); }) } }, `Sample ${number + 1}`));
  const controls = source.live
    ? [promptBox("Prompt", () => {}),
      slider("New tokens", { min: 4, max: room, value: settings.tokens, on: (value) => { settings.tokens = value; } }),
      slider("Temperature", { min: 0, max: 1.5, step: 0.1, value: settings.temperature, show: (value) => value.toFixed(1), on: (value) => { settings.temperature = value; } }),
      h("p", { class: "trace-form" }, h("button", { type: "button", on: { click: write } }, "Continue and trace"), h("button", { type: "button", on: { click: () => context.run(place, (signal) => ask(shared.text, 0, signal)) } }, "Trace the prompt"), h("button", { type: "button", on: { click: stop } }, "Stop"))]
    : [servedNote("Recorded samples."), h("p", { class: "trace-form" }, choices)];
  if (choices.length) queueMicrotask(() => choices[0].click());
  return traceSection("trace-trace", "Trace generated text",
    h("p", {}, "Passages of a continuation that occur verbatim in the training text are marked: the longest and rarest ones, with at most ten occurrences. Choose one to read its documents. An occurrence does not prove that the model learned the passage there."),
    controls, place);
};

// Memorization: documents of both splits, one request each.
const traceRecite = (about) => {
  const [status, result, shown] = [h("p", { class: "note", role: "status" }), h("div"), h("div", { "aria-live": "polite" })];
  const place = h("div", {}, status, result);
  const splits = Object.keys(about.splits);
  const chart = lineChart("Correct next tokens", "by the length of the prefix in tokens", { large: true });
  const recordedOf = traceFieldsOf("recite")[0]?.of;
  let of = 16;
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const draw = (found) => {
    const at = (split, prefix) => found.filter((one) => one.split === split).flatMap((one) => one.prefixes.filter((row) => row.prefix === prefix));
    const prefixes = [...new Set(found.flatMap((one) => one.prefixes.map((row) => row.prefix)))].sort((a, b) => a - b);
    const share = (rows) => mean(rows.map((row) => row.right / row.next));
    const lines = splits.map((split) => ({ label: traceSplits[split] || split, points: prefixes.filter((prefix) => at(split, prefix).length).map((prefix) => [prefix, share(at(split, prefix))]) }));
    const cells = (rows) => (rows.length ? [percent(share(rows)), decimals(mean(rows.map((row) => row.verbatim)), 1), whole(Math.max(...rows.map((row) => row.verbatim)))] : ["–", "–", "–"]);
    const heads = ["correct", "mean run", "longest run"];
    const table = h("table", {}, h("caption", {}, `Greedy decoding of the next ${about.next} tokens. A run is the number of correct tokens before the first wrong one.`),
      h("thead", {}, h("tr", {}, h("th", { rowspan: 2, scope: "col" }, "prefix"), splits.map((split) => h("th", { colspan: 3, scope: "colgroup" }, traceSplits[split] || split))), h("tr", {}, splits.flatMap(() => heads.map((head) => h("th", { scope: "col" }, head))))),
      h("tbody", {}, prefixes.map((prefix) => h("tr", {}, h("th", { scope: "row" }, whole(prefix)), splits.flatMap((split) => cells(at(split, prefix)).map((cell) => h("td", {}, cell)))))));
    const longest = (one) => Math.max(...one.prefixes.map((row) => row.verbatim));
    const best = found.filter((one) => one.prefixes.length).sort((a, b) => longest(b) - longest(a)).slice(0, 8);
    const list = h("ol", { class: "trace-spans" }, best.map((one) => h("li", {}, h("button", { type: "button", on: { click: () => showDocument(one) } }, h("bdi", { class: "url" }, plainText(one.document.url || one.document.id))), h("span", {}, ` ${traceSplits[one.split] || one.split}, longest run ${plural(longest(one), "token")}`))));
    chart.draw({ x: { name: "prefix", logarithmic: true, shift: 0, ticks: prefixes }, y: { zero: true, show: percent }, series: lines.map(({ label, points }, i) => ({ name: label, colour: i ? "var(--second)" : "var(--accent)", dash: i ? "6 4" : "", dots: true, points })) });
    put(result, chart, h("div", { class: "trace-scroll", tabindex: "0", role: "region", "aria-label": "The figures of the chart" }, table), h("h3", {}, "Longest runs"), list, shown);
  };
  const showDocument = (one) => {
    const hint = h("p", { class: "note", "aria-live": "polite" }, "Underlined tokens are the model's first guess. Select another token to see its first guess there.");
    const strip = tokenStrip("The document.", one.tokens, {
      decorate: (span, token) => span.classList.add(token.right ? "trace-right" : "trace-wrong"),
      choose: (index) => { const token = one.tokens[index]; if (token) hint.textContent = token.right ? `${token.text}: correct.` : `${token.text}: the model predicts ${token.said}.`; },
    });
    shown.replaceChildren(h("h3", {}, traceAddress(one.document), traceOf(one.document)), hint, strip);
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
    ? [slider("Documents per split", { min: 4, max: 64, step: 4, value: of, on: (value) => { of = value; } }), h("p", { class: "trace-form" }, h("button", { type: "button", on: { click: begin } }, "Test memorization"), h("button", { type: "button", on: { click: stop } }, "Stop"))]
    : recordedOf ? note(`${plural(recordedOf, "document")} per split, recorded.`) : servedNote("Not recorded.");
  if (!source.live && recordedOf) queueMicrotask(begin);
  return traceSection("trace-recite", "Verbatim continuation",
    h("p", {}, "Given the first tokens of a document, does the model continue it verbatim? Training documents are compared with held-out ones: if it continues training documents better, it memorized them; if not, it learned the language, not the texts."),
    about.prefixes.length ? [controls, place] : note(`A context of ${plural(context.model.context_length, "token")} is too short for this.`));
};

pages.push({
  id: "trace",
  title: "Memorization",
  about: "Where a text occurs in the training data, how much of that data the model can repeat verbatim, and whether benchmark questions are in it.",
  mount(root, context, parameters) {
    const place = h("div");
    root.append(place);
    let write = null;
    context.run(place, async (signal) => {
      if (!source.has("corpus")) { place.replaceChildren(servedNote("Not recorded.")); return; }
      const about = await source.ask("corpus", {}, signal);
      if (!about.made) {
        place.replaceChildren(h("div", { class: "panel" }, h("h2", {}, about.shards ? "The training text is not indexed" : "The training text is not available"), h("p", {}, plainText(about.message)), about.shards && note("The index is built once from the token shards of the run: a few seconds per million tokens, 6 bytes per token. Then reload this page.")));
        return;
      }
      const size = Object.entries(about.splits).map(([split, one]) => `${whole(one.tokens)} tokens of ${plural(one.documents, "document")} (${traceSplits[split] || split})`).join(" and ");
      const step = shared.step ?? context.model.step;
      const after = Math.max(1, about.epochs.findIndex(([at]) => at >= step)), last = about.epochs.length - 1;
      const [[from, low], [to, high]] = step > about.epochs[last][0] ? about.epochs.slice(-2) : about.epochs.slice(after - 1, after + 1);
      const epochs = low + (step - from) * (high - low) / (to - from);
      const read = epochs ? ` At step ${whole(step)} the model has read ${epochs < 0.995 ? `about ${percent(epochs)} of the training text` : `the training text about ${decimals(epochs, 1)} times`}.` : "";
      const others = about.sources.length ? `; with the shards of ${about.sources.map(plainText).join(", ")}` : "";
      place.replaceChildren(note(`Indexed: ${size}${others}.${read}`), traceSearch(parameters), traceTrace(), traceRecite(about), traceContamination(about, parameters));
      write = place.querySelector("#prompt");
    });
    return { update(changed) { if (changed.includes("text") && write && document.activeElement !== write) write.value = shared.text; } };
  },
});

// Page "Report": the figures of a finished run, and one document followed from its HTML to the model's loss. Without
// them (a run that has not finished, or only one page of it), the page lists the others.

// Command that serves this run, to be run in the repository. An exported page is in the run's report/ folder.
const serveCommand = (options = "", script = "serve") => {
  const found = location.protocol === "file:" ? decodeURIComponent(location.pathname).match(/^(.+)\/report\/[^/]+$/) : null;
  const run = source.live || !found ? "RUN_FOLDER" : found[1];
  return `.venv/bin/python -m launch.${script} ${/^[\w./-]+$/.test(run) ? run : "'" + run.replace(/'/g, "'\\''") + "'"}${options}`;
};
// Note that something needs the served page.
const servedNote = (what) => note(`${what} Serve the run: `, h("code", {}, serveCommand()));

const PAGE_SUMMARIES = {
  chat: "Talk to the model; see the tools that it calls, its sources, and the tokens that it reads.",
  tokens: "Type a sentence to see the tokens that the model reads, and how the tokenizer learned them.",
  predict: "See the probability of each next token, change the temperature, and let the model continue.",
  inside: "Follow your text through the layers: attention, and what each layer would predict.",
  training: "Loss curves, and how the model's predictions for one text improve step by step.",
  data: "What each filter dropped, the documents, and the batch of every step.",
  trace: "Find a passage in the training text, and test how much of it the model memorized.",
};
const pageList = () => h("ul", { class: "page-list" }, pages.filter((page) => page.id in PAGE_SUMMARIES).map((page) => h("li", {},
  h("a", { href: address(page.id), on: { click: (event) => { event.preventDefault(); context.show(page.id); } } }, page.title), " ", PAGE_SUMMARIES[page.id])));

const reportFigure = (name, value, aside, best) => h("div", { class: best ? "best" : null }, h("dt", {}, name), h("dd", {}, value), aside ? h("dd", { class: "aside" }, aside) : null);
const reportSection = (id, title, ...children) => h("section", { id: "report-" + id, "aria-labelledby": "report-title-" + id }, h("h2", { id: "report-title-" + id }, title), children);

const reportFigures = (run) => h("dl", { class: "figures" },
  reportFigure("bits per byte, held-out text", decimals(run.rates["this model"] ?? NaN), Object.entries(run.rates).filter(([name]) => name !== "this model").map(([name, rate]) => `${name}: ${decimals(rate)}`).join(", "), true),
  reportFigure("parameters", shortNumber(run.parameters)),
  reportFigure("training tokens", shortNumber(run.splits.train_tokens), `${decimals(run.splits.bytes_per_token)} bytes per token`),
  reportFigure("documents kept", whole(run.documents_kept), `${percent(run.documents_kept / Math.max(1, run.pages_read))} of ${plural(run.pages_read, "page")}`),
  reportFigure("clean text", bytesText(run.clean_text_bytes)));

// The HTML of a page: text that extraction kept is marked, text that it removed is struck out.
const reportHtml = (pieces) => h("pre", { class: "report-html", dir: "ltr", tabindex: "0", role: "region", "aria-label": "HTML of the page; the extracted text is marked" },
  pieces.map(({ kind, text }) => (kind === "kept" ? h("mark", {}, plainText(text)) : kind === "cut" ? h("i", {}, ` … ${text} characters … `) : kind === "text" ? h("del", {}, plainText(text)) : plainText(text))));

const reportFollowed = (place) => context.run(place, async (signal) => {
  const [funnel, found] = await Promise.all([dataFunnel(signal), source.ask("followed", {}, signal)]);
  if (found.missing) { put(place, note(found.missing)); return; }
  const fields = { tokens: found.ids };
  const score = source.has("score", fields) ? await source.ask("score", fields, signal) : null;
  const reader = predictText(null);
  if (score) reader.set(score, await tokensLoad("", signal));
  const kind = found.held_out ? (found.is_end ? "This is the held-out end of a document: the model was not trained on it." : "The model was not trained on this document.") : "No held-out document was found, so the model was trained on this one; its loss is lower than on new text.";
  put(place,
    h("p", {}, h("bdi", { class: "url" }, plainText(found.url || found.file_path)), found.date ? `, fetched ${plainText(found.date.slice(0, 10))}. ` : ". ", kind, ` Shown is the same passage at each stage, the first ${whole(found.ids.length)} of ${plural(found.tokens, "token")}.`),
    h("div", { class: "split" },
      found.html.length ? h("div", {}, h("h3", {}, "1. HTML"), note(`${bytesText(found.html_bytes)}. `, h("mark", {}, "Marked"), " text was extracted."), reportHtml(found.html)) : null,
      h("div", {}, h("h3", {}, `${found.html.length ? 2 : 1}. Text`), note(`${bytesText(found.bytes)}${found.language ? `, language ${plainText(found.language)} (score ${decimals(found.language_score)})` : ""}.${found.lines.some(([, kept]) => !kept) ? " Filters removed the lines that are struck out." : ""}${found.html.length ? "" : " There is no HTML: the input was text, or the archive is not here."}`),
        h("div", { class: "report-text", dir: "auto", tabindex: "0", role: "region", "aria-label": "Text of the document" }, found.lines.map(([line, kept]) => h("p", {}, kept ? plainText(line) : h("del", {}, plainText(line))))))),
    h("details", {}, h("summary", {}, `It passed all ${plural(found.values.length, "threshold")}. Show the measured values`), dataValues(funnel, { ...found, stage: "", reason: "" })),
    h("h3", {}, `${found.html.length ? 3 : 2}. Tokens and loss`),
    score ? [note(`${decimals(score.bits / score.bytes)} bits per byte; ${percent(score.tokens.filter((token) => token.rank === 1).length / score.tokens.length)} of the tokens were the model's first guess. The darker a token, the more bits it cost: −log₂ of its probability.`), reader] : note("Its loss was not recorded."));
});

const reportCompression = (run) => {
  const rates = Object.entries(run.rates).filter(([, rate]) => rate !== null);
  const most = Math.max(...rates.map(([, rate]) => rate));
  const needed = (name) => (name === "this model" ? run.parameter_bytes : 0);
  const text = (rate) => (run.clean_text_bytes * rate) / 8;
  return [
    h("p", {}, `A model that predicts a text well can compress it. Bits per byte of the same ${bytesText(run.validation_bytes)} of held-out documents (uncompressed: 8):`),
    h("ul", { class: "report-bars" }, rates.map(([name, rate]) => h("li", { class: name === "this model" ? "best" : null }, h("span", {}, name), shareBar(rate / most), h("span", { class: "n" }, decimals(rate, 3))))),
    h("p", {}, `The compressors start from nothing, while the model was trained on ${run.tokens_read ? `${shortNumber(run.tokens_read)} tokens of such text` : "such text"} and its ${plural(run.parameters, "parameter")} (${run.parameter_dtype}) take ${bytesText(run.parameter_bytes)}. `
      + (run.breaks_even ? `With them included, the model beats gzip from ${bytesText(run.breaks_even)} of text on.` : "It does not beat gzip.")),
    dataTable(`All ${bytesText(run.clean_text_bytes)} of clean text, compressed at the held-out rate`, ["Compressor", "Bits per byte", "Text", "Parameters", "Total"],
      rates.map(([name, rate]) => [name, decimals(rate, 3), bytesText(text(rate)), needed(name) ? bytesText(needed(name)) : "–", bytesText(text(rate) + needed(name))])),
  ];
};

const reportSamples = (place) => context.run(place, async (signal) => {
  const samples = source.has("samples") ? await source.ask("samples", {}, signal) : { final: [] };
  if (!samples.final?.length) { put(place, note("No samples. Set prompts in ", h("code", {}, "sample.prompts"), ".")); return; }
  put(place, note("Temperature 0 always takes the likeliest token. The prompt is bold."), h("div", { class: "report-samples" }, samples.final.map((one) => h("article", {},
    h("p", { class: "note" }, `temperature ${one.temperature}`), h("div", { class: "report-text", dir: "auto", tabindex: "0", role: "group", "aria-label": "Sample" }, h("b", {}, plainText(one.prompt)), plainText(one.text))))));
});

const reportTraining = (run) => {
  const { layers, width, heads, context_length } = run.model;
  const share = run.mfu !== null ? ` (${percent(run.mfu)} of the chips' peak, MFU)` : run.cpu_matmul_share !== null ? ` (${percent(run.cpu_matmul_share)} of the fastest matrix product measured on this CPU)` : "";
  const number = (value) => (value === null ? "–" : exactNumber(value));
  return [
    h("p", {}, `${plural(layers, "layer")} of width ${whole(width)} with ${plural(heads, "head")}; ${plural(run.parameters, "parameter")}; context of ${plural(context_length, "token")}; ${plural(run.steps, "step")}. `
      + (run.tokens_per_second ? `Median speed: ${plural(run.tokens_per_second, "token")} per second${share}. ` : "") + `Loss on all held-out documents: ${decimals(run.validation_loss ?? NaN, 3)} nats per token. `,
      h("a", { href: "#training" }, "Loss curves and samples by step")),
    run.scores.length ? dataTable("Benchmark scores. acc is the share of questions whose likeliest answer is right, acc_norm with likelihoods per character.", ["Task", "Metric", "First", "Last", "Finished model", "Random guessing"],
      run.scores.map((one) => [one.task + (one.by_harness ? " (lm-eval)" : ""), one.figure, ...[0, 1].map((end) => (one.ends[end] ? `${number(one.ends[end][1])} (step ${whole(one.ends[end][0])})` : "–")), number(one.final), number(one.guessing)])) : null,
  ];
};

const reportTimes = (title, seconds, lead) => {
  const rows = Object.entries(seconds);
  if (!rows.length) return null;
  const most = Math.max(...rows.map(([, one]) => one));
  return [lead ? h("p", {}, lead) : null, h("h3", {}, title), h("ul", { class: "report-bars" }, rows.map(([name, one]) => h("li", {}, h("span", {}, name), shareBar(one / most), h("span", { class: "n" }, duration(one)))))];
};

const reportSources = (run) => (run.packages.length
  ? [h("p", {}, `${plural(run.pages_read, "page")} of HTML from ${plural(new Set(run.packages.map((one) => one.file.project)).size, "package")}, pinned by name, version and SHA-256, and written as WARC in ${plural(run.files_in_all, "file")} (${bytesText(run.files_bytes)} compressed). The texts belong to their authors.`),
    dataTable("", ["Package", "License", "Pages", "HTML"], run.packages.map((one) => [
      [h("b", {}, plainText(`${one.file.project} ${one.file.version}`)), h("span", { class: "note" }, " ", plainText(one.credit)), h("span", { class: "report-hash" }, plainText(`${one.file.name} · ${String(one.file.sha256).slice(0, 16)}…`))], plainText(one.licence), whole(one.pages), bytesText(one.html_bytes)]), { class: "report-packages" })]
  : [h("p", {}, `${plural(run.pages_read, "page")} in ${plural(run.files_in_all, "input file")}, ${bytesText(run.files_bytes)} in total.`),
    dataTable("", ["File", "Pages", "Size"], run.files.map((one) => [h("bdi", { class: "url" }, plainText(one.path)), Number.isFinite(one.pages) ? whole(one.pages) : "–", bytesText(one.bytes)])),
    run.files_in_all > run.files.length ? note(`and ${whole(run.files_in_all - run.files.length)} more`) : null]);

const settingsList = (values) => h("dl", { class: "settings" }, Object.entries(values).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, plainText(value)))));

const reportMount = (root) => {
  const place = h("div", {});
  const explore = h("section", { "aria-labelledby": "report-explore" }, h("h2", { id: "report-explore" }, "Explore"), pageList(),
    h("p", {}, "New to language models? ", source.live ? h("a", { href: "/docs/tour.md" }, "The tour") : "The tour (docs/tour.md in the repository)", " follows one document from the crawl to a sample."),
    source.live ? null : note("This page is one file and loads nothing. For texts of your own, serve the run: ", h("code", {}, serveCommand())));
  root.append(place, explore);
  context.run(place, async (signal) => {
    const run = source.has("report") ? await source.ask("report", {}, signal) : { missing: "" };
    if (run.missing !== undefined) { put(place, run.missing ? note(`There is no report yet: ${run.missing}`) : null); return; }
    const [followed, samples] = [h("div", {}), h("div", {})];
    put(place,
      reportFigures(run),
      run.damage.length ? h("div", { class: "problem", role: "alert" }, h("b", {}, "Some logs of this run are damaged; figures from them may be incomplete or wrong:"), h("ul", {}, run.damage.map((one) => h("li", {}, plainText(one))))) : null,
      reportSection("document", "One document, from HTML to loss", followed),
      reportSection("compression", "Compression", reportCompression(run)),
      reportSection("samples", "Samples", samples),
      reportSection("training", "Training", reportTraining(run)),
      reportSection("data", "Data", h("p", {}, `${plural(run.pages_read, "page")} were read and ${plural(run.documents_kept, "document")} kept. `, h("a", { href: "#data" }, "What each filter dropped"), ", ", h("a", { href: "#data?view=rules" }, "thresholds and distributions"), ", ", h("a", { href: "#data?view=documents" }, "documents"), ".")),
      reportSection("time", "Time", reportTimes("By stage", run.seconds, `${duration(Object.values(run.seconds).reduce((a, b) => a + b, 0))} in total.`),
        run.attempts ? reportTimes("Training", run.phases, `Training took ${plural(run.attempts, "attempt")}; ${percent(run.goodput ?? 0)} of the time was spent on training steps that counted.`) : null),
      reportSection("settings", "Settings and versions", h("p", {}, "Tokenizer fingerprint ", h("code", { class: "url" }, run.fingerprint), ". The same config gives the same documents, tokenizer and shards, byte for byte."),
        Object.entries({ ...run.settings, versions: run.versions }).map(([name, values]) => h("details", {}, h("summary", {}, `${name} (${Object.keys(values).length})`), settingsList(values)))),
      reportSection("sources", "Sources and licenses", reportSources(run)));
    reportFollowed(followed);
    reportSamples(samples);
  });
};

pages.push({
  id: "report", title: "Report",
  about: "From web pages to a language model: what this run read, trained and reached.",
  mount: reportMount,
});

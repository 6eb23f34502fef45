// Page "Data": the training data. This file has the frame, the funnel and the rules; see also data_documents.js and
// data_batches.js.

const DATA_SIDES = { below: "<", "at most": "<=", above: ">", "at least": ">=" };
// A threshold: "language score <= 0.65".
const thresholdText = (line, limit = line.value) => `${line.title.toLowerCase()} ${DATA_SIDES[line.drops]} ${valueText(limit)}`;
const reasonText = (reason) => plainText(reason.replaceAll("_", " "));

const dataHash = (view, parameters = {}) => {
  const all = Object.entries({ view, ...parameters }).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return "#data?" + new URLSearchParams(all).toString();
};
const dataLink = (view, parameters, ...children) => h("a", { href: dataHash(view, parameters) }, children);
// Link to a document by file and row; exported pages can only open recorded ones.
const dataDocumentLink = ({ file, row }, ...children) => (source.has("document", { file, row, ...dataCharacters() }) ? dataLink("document", { file, row }, children) : h("span", {}, children));
const dataAddress = (url, most = Infinity) => {
  const plain = plainText(url);
  return h("bdi", { class: "url" }, plain.length > most ? plain.slice(0, most) + " …" : plain || "no URL");
};
const DATA_SHORT = 160; // characters of a URL in a list

// A heading that gets the focus after following a link of this page.
const dataHeading = (text) => h("h2", { tabindex: "-1" }, text);

// Documents of an answer and characters of one in the exported page.
const DATA_LIMIT = source.live ? 50 : 5;
const dataCharacters = () => (source.live ? {} : { characters: 1500 });

let dataFunnelAnswer = null;
const dataFunnel = async (signal) => {
  if (!dataFunnelAnswer) dataFunnelAnswer = await source.ask("funnel", {}, signal);
  return dataFunnelAnswer;
};

const dataShare = (part, all) => (all ? percent(part / all) : "–");

const dataStage = (stage, all) => h("li", { class: "data-stage" },
  h("h3", {}, stage.title),
  h("p", { class: "note" }, `${whole(stage.entered)} in, ${whole(stage.dropped)} dropped (${dataShare(stage.dropped, stage.entered)}; ${bytesText(stage.bytes)} of text), ${whole(stage.entered - stage.dropped)} left.`),
  shareBar((stage.entered - stage.dropped) / Math.max(1, all), stage.dropped / Math.max(1, all)),
  stage.about ? note(stage.about) : null,
  dataTable("", ["Rule", "Documents", "Share", "Text"], stage.reasons.map((reason) => [
    [dataLink("documents", { reason: reason.name }, reasonText(reason.reason)), h("span", { class: "data-about" }, reason.threshold ? thresholdText(reason.threshold) + ": dropped" : reason.about)],
    whole(reason.documents), dataShare(reason.documents, stage.entered), bytesText(reason.bytes)])));

const dataCounts = (names) => Object.entries(names).map(([name, count]) => `${reasonText(name)}: ${whole(count)}`).join(", ");

const dataShowFunnel = (place) => context.run(place, async (signal) => {
  const funnel = await dataFunnel(signal);
  if (funnel.missing) { put(place, dataHeading("Funnel"), note(funnel.missing)); return; }
  const tables = [
    funnel.by_language.length ? dataTable("Languages with their own thresholds", ["Language", "Texts", "Kept", "Text kept", "Most dropped by"], funnel.by_language.map((one) => [plainText(one.language), whole(one.documents), `${whole(one.kept)} (${dataShare(one.kept, one.documents)})`, bytesText(one.kept_bytes), one.dropped.map(([name, count]) => `${reasonText(name.split("/").pop())} ${whole(count)}`).join(", ") || "–"])) : null,
    funnel.languages.length ? dataTable("Detected languages, including dropped documents", ["Language", "Documents", "Text"], funnel.languages.map(([name, documents, bytes]) => [plainText(name), whole(documents), bytesText(bytes)])) : null,
    funnel.domains.length ? dataTable("Largest domains of kept documents", ["Domain", "Documents", "Text"], funnel.domains.map(([name, documents, bytes]) => [h("bdi", { class: "url" }, plainText(name) || "no URL"), whole(documents), bytesText(bytes)])) : null,
    funnel.clusters.length ? dataTable("Kept documents by the size of their cluster of duplicates", ["Documents in the cluster", "Kept", "In all"], funnel.clusters.map(([low, high, kept, documents]) => [high === null ? `${whole(low)} or more` : high > low + 1 ? `${whole(low)} to ${whole(high - 1)}` : whole(low), whole(kept), whole(documents)])) : null,
  ];
  put(place,
    dataHeading("Funnel"),
    funnel.preview ? h("div", { class: "panel" }, h("p", {}, h("b", {}, "Preview with other thresholds"), ", from measured values; documents/ has not changed. Duplicates were not searched again, so the documents that pass still include them."),
      funnel.changes ? (funnel.changes.length ? h("ul", {}, funnel.changes.map((one) => h("li", {}, h("code", {}, plainText(one.trim()))))) : h("p", {}, "The thresholds are the run's own.")) : null) : null,
    h("p", {}, `${plural(funnel.pages, "page")} were read and `, dataLink("documents", {}, plural(funnel.kept, "document")), ` (${dataShare(funnel.kept, funnel.pages)}) ${funnel.preview ? "pass" : "kept"}: ${bytesText(funnel.clean_text_bytes || funnel.kept_bytes)} of ${bytesText(funnel.bytes)} of text. Each page goes through the stages in order, and the first rule that it breaks drops it. Choose a rule to see its documents, or see `, dataLink("rules", {}, "all rules and their distributions"), "."),
    h("ol", { class: "data-funnel" }, funnel.stages.map((stage) => dataStage(stage, funnel.pages)),
      h("li", { class: "data-stage" }, h("h3", {}, dataLink("documents", {}, "Kept")), note(`${plural(funnel.kept, "document")}, ${bytesText(funnel.clean_text_bytes || funnel.kept_bytes)} of text.`), shareBar(funnel.kept / Math.max(1, funnel.pages)))),
    Object.keys(funnel.skipped).length ? note(`Records of the archives that are not pages, and are not counted: ${dataCounts(funnel.skipped)}.`) : null,
    Object.keys(funnel.replaced).length ? note(`Personal data replaced in kept documents: ${dataCounts(funnel.replaced)}.`) : null,
    h("div", { class: "split" }, tables),
    funnel.lengths.length ? [h("h3", {}, "Lengths of kept documents"), columnChart("Lengths of kept documents, in bytes", { kind: "doubling", edges: [...funnel.lengths.map(([low]) => low), funnel.lengths.at(-1)[1]], counts: funnel.lengths.map(([, , count]) => [count]), names: [["documents", "var(--bar)"]], showX: bytesText })] : null,
    note("To preview other thresholds: ", h("code", {}, "python -m launch.refilter CONFIG.py --workdir RUN --documents.fineweb.max-short-lines 0.8")));
});

const DATA_GROUPS = [["kept", "var(--bar)"], ["dropped by this rule", "var(--accent)"], ["dropped by another rule", "var(--dropped)"]];

// Distribution of a signal, with its thresholds.
const dataDistribution = (funnel, signal) => {
  const lines = funnel.thresholds.filter((one) => one.signal === signal.signal).map((one, i) => {
    const upper = one.drops === "above" || one.drops === "at least";
    return { at: signal.lines[i], upper, label: upper ? valueText(one.value) + " →" : "← " + valueText(one.value) };
  });
  const beyond = [signal.below ? `The first column includes ${whole(signal.below)} smaller values, down to ${valueText(signal.lowest)}.` : "", signal.above ? `The last column includes ${whole(signal.above)} larger values, up to ${valueText(signal.highest)}.` : ""].filter(Boolean).join(" ");
  return [columnChart(`Distribution of ${signal.title.toLowerCase()}`, { edges: signal.edges, counts: signal.counts, names: DATA_GROUPS, lines, kind: signal.kind, above: signal.above }), beyond ? note(beyond) : null];
};

const dataShowRules = (place) => context.run(place, async (signal) => {
  const funnel = await dataFunnel(signal);
  if (funnel.missing) { put(place, dataHeading("Rules"), note(funnel.missing)); return; }
  const counts = new Map(funnel.stages.flatMap((stage) => stage.reasons.map((reason) => [reason.name, reason.documents])));
  const linesOf = (one) => funnel.thresholds.filter((line) => line.signal === one.signal);
  const rule = (one) => h("div", { class: "data-rule" }, h("h4", {}, one.title), note(one.sentence), dataDistribution(funnel, one), h("ul", {}, linesOf(one).map((line) => {
    const name = `${line.stage}/${line.reason}`;
    const count = counts.get(name) || 0;
    return h("li", {}, thresholdText(line), ": ", count ? dataLink("documents", { reason: name }, plural(count, "document") + " dropped") : "0 dropped", h("span", { class: "data-about" }, line.option, Object.keys(line.by_language).length ? `; by language: ${Object.entries(line.by_language).map(([language, value]) => `${plainText(language)} ${valueText(value)}`).join(", ")}` : ""));
  })));
  const stages = new Map();
  for (const one of funnel.signals) {
    const line = linesOf(one)[0];
    stages.set(line.stage, [...(stages.get(line.stage) || []), one]);
  }
  const drops = (one) => linesOf(one).some((line) => counts.has(`${line.stage}/${line.reason}`));
  put(place,
    dataHeading("Rules"),
    h("p", {}, "Each rule compares one measured value with a threshold. The charts show that value for all documents, including dropped ones; the tinted side of the threshold is dropped. A document is counted under the first rule that it breaks. Heights are proportional to the square root of the count."),
    h("p", { class: "data-key" }, DATA_GROUPS.map(([name, colour]) => h("span", {}, h("i", { style: { background: colour } }), name))),
    funnel.signals.length ? null : note("This run used no rule with a threshold."),
    [...stages.values()].map((signals) => [h("h3", {}, linesOf(signals[0])[0].stage_title), note(linesOf(signals[0])[0].about), h("div", { class: "data-rules" }, signals.filter(drops).map(rule)),
      signals.every(drops) ? null : h("details", {}, h("summary", {}, `${plural(signals.filter((one) => !drops(one)).length, "more rule")} dropped nothing: ${signals.filter((one) => !drops(one)).map((one) => one.title.toLowerCase()).join(", ")}`), h("div", { class: "data-rules" }, signals.filter((one) => !drops(one)).map(rule)))]));
});

const dataViews = { funnel: ["Funnel", dataShowFunnel], rules: ["Rules", dataShowRules] };

pages.push({
  id: "data",
  title: "Data",
  about: "The data that the model was trained on: which pages were dropped and why, the documents, and which of them were in the batch of each step.",
  mount(root) {
    const place = h("div", { class: "data-view" });
    const links = Object.entries(dataViews).filter(([view, [title]]) => title && (view !== "batch" || source.has("batch"))).map(([view, [title]]) => h("a", { href: dataHash(view), "data-view": view }, title));
    root.append(h("div", { class: "data-menu", role: "navigation", "aria-label": "Parts of this page" }, links), place);
    let shown = null;
    const show = () => {
      const parameters = pageParameters();
      const view = dataViews[parameters.view] ? parameters.view : "funnel";
      for (const link of links) {
        if (link.dataset.view === (view === "document" ? "documents" : view)) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
      }
      const first = shown === null;
      shown = dataViews[view][1](place, parameters);
      shown.then(() => { if (!first) place.querySelector("h2")?.focus({ preventScroll: false }); });
    };
    dataFunnelAnswer = null;
    show();
    return { follows: true, update(changed) { if (changed.includes("address")) show(); }, unmount() { context.cancel(place); } };
  },
});

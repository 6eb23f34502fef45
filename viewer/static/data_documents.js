// Page "Data": list of documents, search, and one document with its values, its page and its steps.

// A text with the search words highlighted.
const dataMarked = (text, words) => {
  const pattern = new RegExp("(" + words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|") + ")", "giu");
  return text.split(pattern).map((part, i) => (i % 2 ? h("mark", {}, part) : part));
};

const dataListed = (one, line, words) => h("li", {},
  dataDocumentLink(one, dataAddress(one.url, DATA_SHORT)),
  h("span", { class: "data-meta" },
    [bytesText(one.bytes), one.language && plainText(one.language), line && one.value !== null && `${line.title.toLowerCase()} ${valueText(one.value)}`].filter(Boolean).join(" · ")),
  h("p", { class: "data-beginning", dir: "auto" }, one.passage ? ["… ", dataMarked(plainText(one.passage), words), " …"] : plainText(one.beginning) || "No text."));

// Filter and search form.
const dataChoice = (funnel, parameters) => {
  const reasons = funnel.missing ? [] : funnel.stages.flatMap((stage) => stage.reasons.map((reason) => ({ ...reason, stage: stage.title })));
  const select = h("select", { id: "data-reason" },
    h("option", { value: "" }, "Kept" + (funnel.missing ? "" : ` (${whole(funnel.kept)})`)),
    reasons.map((one) => h("option", { value: one.name }, `Dropped: ${one.stage}, ${reasonText(one.reason)} (${whole(one.documents)})`)));
  select.value = parameters.reason || "";
  const query = h("input", { type: "search", id: "data-query", maxlength: 200, value: parameters.query || "", dir: "auto", autocomplete: "off" });
  const within = h("select", { id: "data-within" }, h("option", { value: "" }, "in URL or text"), h("option", { value: "address" }, "in the URL only"));
  within.value = parameters.within || "";
  const go = () => { location.hash = dataHash("documents", { reason: select.value, query: query.value.trim(), within: query.value.trim() ? within.value : "" }); };
  select.addEventListener("change", go);
  const form = h("form", { class: "data-choice", on: { submit: (event) => { event.preventDefault(); go(); } } },
    h("label", { for: "data-reason" }, "Documents"), select,
    source.live && [h("label", { for: "data-query" }, "containing"), query, h("label", { for: "data-within" }, "where"), within, h("button", { type: "submit" }, "Search")]);
  return form;
};

const dataShowDocuments = (place, parameters) => context.run(place, async (signal) => {
  const funnel = await dataFunnel(signal);
  const reasons = funnel.missing ? [] : funnel.stages.flatMap((stage) => stage.reasons);
  const reason = reasons.find((one) => one.name === parameters.reason);
  const line = reason ? reason.threshold : null;
  const offset = Number(parameters.offset) || 0;
  const list = h("ul", { class: "data-list" });
  const status = h("p", { class: "note", role: "status" });
  const stop = h("button", { type: "button", hidden: true, on: { click: () => context.cancel(list) } }, "Stop");
  const pager = h("div", { class: "data-pager" });
  const near = h("div", {});
  put(place,
    dataHeading(parameters.reason ? "Dropped: " + reasonText(parameters.reason.split("/").pop()) : "Kept documents"),
    reason ? h("p", {}, line ? [h("b", {}, thresholdText(line)), `. ${line.sentence}`] : reason.about, line?.about ? h("span", { class: "data-about" }, line.about) : null) : null,
    line && !parameters.query ? dataDistribution(funnel, funnel.signals.find((one) => one.signal === line.signal)) : null,
    dataChoice(funnel, parameters),
    h("div", { class: line && !parameters.query ? "split" : "" }, h("div", { role: "group", "aria-label": "Documents" }, status, list, h("div", { class: "data-pager" }, stop, pager)), near));
  if (line && !parameters.query) dataShowNear(near, parameters.reason, line);
  dataFill({ list, status, stop, pager, line, offset, parameters });
});

// Request until a page is full, and show results as they arrive: each answer covers a part of the documents.
const dataFill = ({ list, status, stop, pager, line, offset, parameters }) => {
  const words = (parameters.query || "").split(/\s+/).filter(Boolean);
  let next = offset, found = 0, rows = null, ended = false;
  const showStatus = () => {
    const end = next === null ? "all" : `the first ${whole(next)}`;
    if (!parameters.query && !parameters.reason) status.textContent = found ? `Documents ${whole(offset + 1)} to ${whole(offset + found)}${rows === null ? "" : " of " + whole(rows)}` : "No documents.";
    else status.textContent = `${plural(found, "document")} found; searched ${end}${rows === null ? "" : " of " + whole(rows)} ${parameters.reason ? "dropped" : "kept"} documents.`;
  };
  context.run(list, async (signal) => {
    stop.hidden = !parameters.query;
    status.textContent = "Searching …";
    while (found < DATA_LIMIT && next !== null) {
      const fields = { reason: parameters.reason || undefined, limit: DATA_LIMIT - found };
      if (next) fields.offset = next;
      if (parameters.query) { fields.query = parameters.query; if (parameters.within) fields.within = parameters.within; }
      const answer = await source.ask("documents", source.live ? fields : { reason: fields.reason, limit: DATA_LIMIT }, signal);
      if (answer.missing) { status.textContent = answer.missing; next = null; ended = true; break; }
      list.append(...answer.documents.map((one) => dataListed(one, line, words)));
      found += answer.documents.length;
      next = source.live ? answer.next : null;
      rows = answer.rows === null && !parameters.reason ? answer.total : answer.rows;
      showStatus();
      if (answer.unreadable.length) status.append(` Damaged files were skipped: ${answer.unreadable.map(plainText).join(", ")}.`);
    }
    if (!source.live && !ended) status.textContent = `${plural(found, "document")} recorded as examples${limited ? "" : "; the served page has all"}.`;
  }).then(() => {
    stop.hidden = true;
    const turn = (to) => () => { location.hash = dataHash("documents", { ...parameters, offset: to || undefined }); };
    put(pager,
      offset ? h("button", { type: "button", on: { click: turn(0) } }, "First page") : null,
      next !== null ? h("button", { type: "button", on: { click: turn(next) } }, found < DATA_LIMIT ? "Continue searching" : "Next page") : null);
  });
};

const dataShowNear = (place, reason, line) => context.run(place, async (signal) => {
  if (!source.has("beside", { reason })) return;
  const answer = await source.ask("beside", { reason }, signal);
  if (!answer.documents || !answer.documents.length) return;
  put(place, h("div", { class: "panel", role: "group", "aria-label": "Kept" },
    h("h3", {}, "Kept documents nearest to the threshold"),
    h("ul", { class: "data-list" }, answer.documents.map((one) => h("li", {},
      dataDocumentLink(one, dataAddress(one.url, DATA_SHORT)),
      h("span", { class: "data-meta" }, `${line.title.toLowerCase()} ${valueText(one.value)}`), one.beginning ? h("p", { class: "data-beginning", dir: "auto" }, plainText(one.beginning)) : null)))));
});

// One row of the table of values.
const dataValueRow = (line, [value, limit, breaks], decides) => h("tr", { class: decides ? "decides" : breaks ? "breaks" : "" },
  h("th", { scope: "row" }, line.title, h("span", { class: "data-about" }, `${reasonText(line.reason)} · ${line.stage_title}`)),
  h("td", {}, valueText(value)), h("td", {}, `${DATA_SIDES[line.drops]} ${valueText(limit)}`),
  h("td", {}, value === null ? "–" : decides ? "✗ dropped by this" : breaks ? "✗ fails" : "✓ passes"));

const dataValues = (funnel, found) => {
  if (!found.values.length) return note("There are no thresholds: funnel.json is missing, or no rule has one.");
  const lines = funnel.thresholds;
  const decides = lines.findIndex((line) => line.stage === found.stage && line.reason === found.reason);
  const order = lines.map((_, i) => i).sort((a, b) => (b === decides) - (a === decides) || found.values[b][2] - found.values[a][2]);
  const papers = [...new Map(lines.map((line) => [line.stage_title, line.about])).entries()];
  return [
    h("div", { class: "data-scroll", tabindex: "0", role: "region", "aria-label": "Values and thresholds" },
      h("table", {},
        h("thead", {}, h("tr", {}, ["Measure", "Value", "Dropped if", "Result"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, order.map((i) => dataValueRow(lines[i], found.values[i], i === decides))))),
    h("details", {}, h("summary", {}, "Sources of these rules"), h("dl", { class: "data-papers" }, papers.map(([title, about]) => [h("dt", {}, title), h("dd", {}, about)]))),
  ];
};

// A long text, truncated by the server; more is loaded on request.
const dataText = (label, first, more) => {
  const box = h("pre", { class: "data-text", dir: "auto", tabindex: "0", role: "region", "aria-label": label }, plainText(first.text) || "No text.");
  const lengthText = h("p", { class: "note", role: "status" });
  const button = h("button", { type: "button" }, "Show more");
  let shownPoints = [...first.text].length; // in code points, like the server
  const showLength = () => {
    lengthText.textContent = shownPoints < first.characters ? `The first ${whole(shownPoints)} of ${plural(first.characters, "character")}.` : `${plural(first.characters, "character")}.`;
    button.hidden = shownPoints >= first.characters || !source.live || !more;
  };
  button.addEventListener("click", () => context.run(lengthText, async (signal) => {
    const answer = await more(shownPoints, signal);
    box.append(plainText(answer.text));
    shownPoints += [...answer.text].length;
    showLength();
  }));
  showLength();
  return [box, lengthText, button];
};

// Explanation of the rule that dropped it.
const dataWhy = (funnel, found) => {
  const i = funnel.missing ? -1 : funnel.thresholds.findIndex((line) => line.stage === found.stage && line.reason === found.reason);
  if (i < 0) return plainText(found.about);
  const line = funnel.thresholds[i];
  return `${line.title}: ${valueText(found.values[i][0])}; documents with ${thresholdText(line, found.values[i][1])} are dropped. ${line.sentence}`;
};

const dataShowDocument = (place, parameters) => context.run(place, async (signal) => {
  const which = parameters.number !== undefined ? { number: Number(parameters.number) } : { file: parameters.file, row: Number(parameters.row) };
  if (which.number === undefined && !which.file) { location.hash = dataHash("documents"); return; }
  const base = parameters.base ? { base: true } : {}; // a document of the run that this one was finetuned from
  const [funnel, found] = await Promise.all([parameters.base ? source.ask("funnel", base, signal) : dataFunnel(signal), source.ask("document", { ...which, ...base, ...dataCharacters() }, signal)]);
  if (found.missing) { put(place, dataHeading("Document"), note(found.missing)); return; }
  const of = { file: found.file, row: found.row, ...base };
  const pagePlace = h("div", {});
  const stepsPlace = h("div", {});
  put(place,
    dataHeading(found.kept ? "Kept document" : "Dropped document"),
    h("p", { class: "data-source" }, dataAddress(found.url)),
    h("p", { class: "data-meta" }, [found.date && "fetched " + plainText(found.date), found.language && `language ${plainText(found.language)} (score ${decimals(found.language_score)})`, bytesText(found.bytes) + " of text", plainText(found.file_path)].filter(Boolean).join(" · ")),
    found.kept ? h("p", {}, "It passed all rules.") : h("p", {}, h("strong", {}, `Dropped by ${found.stage_title}: ${reasonText(found.reason)}.`), " ", dataWhy(funnel, found)),
    found.copy_of ? h("p", {}, "Kept instead of it: ", found.copy_of.file ? dataDocumentLink(found.copy_of, plainText(found.copy_of.name)) : plainText(found.copy_of.name), ".") : null,
    h("div", { class: "split data-pair" },
      h("div", { role: "group", "aria-label": "Text" }, h("h3", {}, "Clean text"),
        dataText("Text", found, (offset, inner) => source.ask("document", { ...of, offset }, inner))),
      h("div", { role: "group", "aria-label": "Page" }, h("h3", {}, "Web page"), pagePlace)),
    h("h3", {}, "Measured values and thresholds"), dataValues(funnel, found),
    found.kept && !parameters.base ? [h("h3", {}, "Training steps with this document"), stepsPlace] : null);
  dataShowPage(pagePlace, of);
  if (found.kept && !parameters.base) dataShowSeen(stepsPlace, { document: found.number });
});

// The raw page, searched in its archive, which may be long.
const dataShowPage = (place, of) => context.run(place, async (signal) => {
  if (!source.live) { put(place, servedNote("The HTML was not recorded.")); return; }
  for (;;) {
    const answer = await source.ask("raw", of, signal);
    if (answer.state === "looking") {
      put(place, h("p", { class: "note", role: "status" }, `Searching its archive: ${plural(answer.read, "page")} read. `, h("button", { type: "button", on: { click: () => { context.cancel(place); put(place, note("Stopped.")); } } }, "Stop")));
      continue;
    }
    if (answer.state !== "found") { put(place, note(answer.why || answer.missing)); return; }
    put(place, ...dataText("HTML of the page", answer, (offset, inner) => source.ask("raw", { ...of, offset }, inner)), note(`${bytesText(answer.bytes)}, shown as text; nothing in it is executed.`));
    return;
  }
});

dataViews.documents = ["Documents", dataShowDocuments];
dataViews.document = ["", dataShowDocument];

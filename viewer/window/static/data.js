// Page "Data": the training data. This file has the frame and the funnel; see also data_documents.js and data_batches.js.

// Escape characters that are invisible or change the text direction.
const DATA_HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]/g;
const dataPlain = (text) => text.replace(DATA_HIDDEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));

const dataBytes = (value) => {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (value >= size) return (value / size).toPrecision(3).replace(/\.$/, "") + " " + unit;
  return plural(value, "byte");
};
const dataNumber = (value) => {
  if (value === null || value === undefined) return "not measured";
  if (Number.isInteger(value)) return whole(value);
  return Math.abs(value) >= 1000 ? whole(value) : String(Number(value.toPrecision(3)));
};
const dataRule = (line) => `${line.title}: dropped ${line.drops} ${dataNumber(line.value)}`;

const dataHash = (view, parameters = {}) => {
  const all = Object.entries({ view, ...parameters }).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return "#data?" + new URLSearchParams(all).toString();
};
const dataLink = (view, parameters, ...children) => h("a", { href: dataHash(view, parameters) }, children);
// Link to a document by file and row; exported pages can only open recorded ones.
const dataDocumentLink = ({ file, row }, ...children) => (source.has("document", { file, row, ...dataCharacters() }) ? dataLink("document", { file, row }, children) : h("span", {}, children));
const dataAddress = (url, most = Infinity) => {
  const plain = dataPlain(url);
  return h("bdi", { class: "url" }, plain.length > most ? plain.slice(0, most) + " …" : plain || "no address");
};
const DATA_SHORT = 160; // characters of a URL in a list
// Replace the contents of an element; null: empty.
const dataPut = (place, ...children) => { place.replaceChildren(); fillIn(place, {}, children); };
const dataNote = (...children) => h("p", { class: "note" }, children);
const dataServed = (what) => dataNote(what + " needs the served page. Run ", h("code", {}, "python -m launch.serve RUN"), " on the run's folder and open the address that it prints.");

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

// A bar of 100 %: remaining documents, those dropped by this stage, and those dropped before.
const dataBar = (all, entered, dropped) => {
  const width = (count) => ({ width: (100 * count) / Math.max(1, all) + "%" });
  return h("div", { class: "data-bar", "aria-hidden": "true" },
    h("span", { class: "left", style: width(entered - dropped) }), h("span", { class: "gone", style: width(dropped) }));
};

const dataReasonRow = (reason, entered) => h("tr", {},
  h("th", { scope: "row" },
    dataLink("documents", { reason: reason.name }, reason.reason.replaceAll("_", " ")),
    h("span", { class: "data-about" }, reason.threshold ? dataRule(reason.threshold) : reason.about)),
  h("td", {}, whole(reason.documents)), h("td", {}, dataShare(reason.documents, entered)), h("td", { class: "wide" }, dataBytes(reason.bytes)));

const dataStage = (stage, all) => h("li", { class: "data-stage" },
  h("h3", {}, stage.title),
  h("p", { class: "data-flow" }, `${whole(stage.entered)} came in, ${whole(stage.dropped)} (${dataShare(stage.dropped, stage.entered)}, ${dataBytes(stage.bytes)} of text) were dropped, ${whole(stage.entered - stage.dropped)} went on.`),
  dataBar(all, stage.entered, stage.dropped),
  stage.about && h("p", { class: "data-about" }, stage.about),
  h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Rule"), h("th", { scope: "col" }, "Documents"), h("th", { scope: "col" }, "Share"), h("th", { scope: "col", class: "wide" }, "Text"))),
    h("tbody", {}, stage.reasons.map((reason) => dataReasonRow(reason, stage.entered)))));

const dataShowFunnel = (place) => context.run(place, async (signal) => {
  const funnel = await dataFunnel(signal);
  if (funnel.missing) {
    dataPut(place, dataHeading("The funnel"), dataNote(funnel.missing));
    return;
  }
  const skipped = Object.entries(funnel.skipped);
  const replaced = Object.entries(funnel.replaced);
  dataPut(place,
    dataHeading("The funnel"),
    h("p", {}, `${plural(funnel.pages, "page")} came in, and `,
      dataLink("documents", {}, plural(funnel.kept, "document")), ` (${dataShare(funnel.kept, funnel.pages)}) were kept: ${dataBytes(funnel.clean_text_bytes)} of text out of ${dataBytes(funnel.bytes)}. `,
      "Each page goes through the stages from top to bottom. The first rule that objects drops it, and gives the reason its name. Choose a rule to read what it dropped."),
    h("ol", { class: "data-funnel" }, funnel.stages.map((stage) => dataStage(stage, funnel.pages)),
      h("li", { class: "data-stage" },
        h("h3", {}, dataLink("documents", {}, "Kept")),
        h("p", { class: "data-flow" }, `${plural(funnel.kept, "document")}, ${dataBytes(funnel.clean_text_bytes)} of text as it was written.`),
        dataBar(funnel.pages, funnel.kept, 0))),
    skipped.length ? dataNote("Records of the archives that are no pages at all, and so were not counted: ", skipped.map(([name, count]) => `${name.replaceAll("_", " ")} ${whole(count)}`).join(", "), ".") : null,
    replaced.length ? dataNote("Personal data that was replaced in what was kept: ", replaced.map(([name, count]) => `${name.replaceAll("_", " ")} ${whole(count)}`).join(", "), ".") : null,
  );
});

const dataViews = { funnel: ["Funnel", dataShowFunnel] };

pages.push({
  id: "data",
  title: "Data",
  about: "What the model was fed: which pages were dropped and why, the documents that were kept, and which of them were in the batch of each step.",
  mount(root) {
    const place = h("div", { class: "data-view" });
    const links = Object.entries(dataViews).filter(([, [title]]) => title).map(([view, [title]]) => h("a", { href: dataHash(view), "data-view": view }, title));
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

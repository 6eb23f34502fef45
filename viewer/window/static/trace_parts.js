// Parts of the page "Recite and trace": documents with a passage, a text with highlighted spans, the chart.

// Text of documents and models, with invisible and direction-changing characters escaped.
const traceShow = (text) => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
const traceSplits = { train: "training text", val: "held-out text" };
const traceNote = (...children) => h("p", { class: "trace-note" }, children);

// Link to a document, unless it is in another run's shards (train.mixture), whose texts are not here.
const traceAddress = (one) => {
  const name = h("bdi", { class: "url" }, traceShow(one.url || one.id || "document " + one.number));
  return one.source ? name : h("a", { href: "#data?" + new URLSearchParams({ view: "document", number: one.number }) }, name);
};
const traceOf = (one) => (one.source ? " of " + traceShow(one.source) : "");

// Documents with a passage, in its context.
const traceDocuments = (documents, count) => {
  if (!documents.length) return traceNote("No document to show.");
  const items = documents.map((one) => h("li", {},
    h("p", { class: "trace-source" },
      traceAddress(one),
      h("span", {}, ` · ${traceSplits[one.split] || one.split}${traceOf(one)}, token ${whole(one.offset + 1)} of ${whole(one.tokens)}`)),
    h("blockquote", { dir: "auto" },
      one.from_start ? null : "… ", traceShow(one.before), h("mark", {}, traceShow(one.match)), traceShow(one.after), one.to_end ? null : " …")));
  const left = count - documents.length;
  return [h("ul", { class: "trace-documents" }, items), left > 0 ? traceNote(`${plural(left, "further place")} not shown.`) : null];
};

// A text whose parts {text, spans: [number, ...]} are highlighted if spans cover them; `choose(number)` shows one, `tell`
// describes it.
const tracePassage = (label, parts, spans, promptCharacters, choose, tell = (number) => `stands ${plural(spans[number].count, "time")} in the training text`) => {
  let read = 0;
  const marks = [];
  const nodes = parts.map((part) => {
    const begin = read;
    read += part.text.length;
    if (!part.spans.length) {
      const cut = Math.max(0, Math.min(part.text.length, promptCharacters - begin));
      return [cut ? h("span", { class: "trace-prompt" }, traceShow(part.text.slice(0, cut))) : null, traceShow(part.text.slice(cut))];
    }
    const rarest = part.spans.reduce((best, number) => (spans[number].bits > spans[best].bits ? number : best));
    const act = () => choose(part.spans[(part.spans.indexOf(Number(node.dataset.at ?? -1)) + 1) % part.spans.length] ?? rarest, node);
    const node = h("span", {
      class: "trace-span", role: "button", tabindex: "0", "aria-pressed": "false",
      "aria-label": `${traceShow(part.text)}: ${tell(rarest)}`,
      on: { click: act, keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); } } },
    }, traceShow(part.text));
    paint(node, Math.min(0.55, 0.15 + spans[rarest].bits / 250));
    marks.push({ node, part });
    return node;
  });
  const box = h("div", { class: "trace-passage", dir: "auto", role: "group", "aria-label": label, tabindex: marks.length ? null : "0" }, nodes); // it may scroll
  box.show = (number) => {
    for (const { node, part } of marks) {
      const here = part.spans.includes(number);
      node.classList.toggle("here", here);
      node.setAttribute("aria-pressed", String(here));
      node.dataset.at = number;
    }
  };
  return box;
};

// Lines over the length of the prefix: {label, points: [[prefix, share], ...]}, at most two of them.
const traceChart = (lines) => {
  const width = 560, height = 260, left = 44, right = 110, top = 20, bottom = 40;
  const all = lines.flatMap((line) => line.points);
  const prefixes = [...new Set(all.map(([prefix]) => prefix))].sort((a, b) => a - b);
  const most = Math.max(0.2, Math.ceil(5 * Math.max(0, ...all.map(([, share]) => share))) / 5); // a multiple of 20 %
  const x = (prefix) => left + (prefixes.length > 1 ? (Math.log2(prefix / prefixes[0]) / Math.log2(prefixes[prefixes.length - 1] / prefixes[0])) * (width - left - right) : 0);
  const y = (share) => height - bottom - (share / most) * (height - top - bottom);
  const rules = [0, 0.25, 0.5, 0.75, 1].map((part) => part * most).map((share) => [
    svg("line", { x1: left, x2: width - right, y1: y(share), y2: y(share), class: "rule" }),
    svg("text", { x: left - 6, y: y(share) + 4, class: "end" }, Math.round(100 * share) + " %")]);
  const ends = lines.map((line) => (line.points.length ? y(line.points[line.points.length - 1][1]) : 0));
  if (ends.length === 2 && Math.abs(ends[0] - ends[1]) < 16) { const low = ends[0] >= ends[1] ? 0 : 1; ends[low] += 8; ends[1 - low] -= 8; }
  const drawn = lines.map((line, index) => line.points.length && svg("g", { class: "line" + index },
    svg("polyline", { points: line.points.map(([prefix, share]) => x(prefix) + "," + y(share)).join(" ") }),
    line.points.map(([prefix, share]) => (index ? svg("rect", { x: x(prefix) - 4, y: y(share) - 4, width: 8, height: 8 }) : svg("circle", { cx: x(prefix), cy: y(share), r: 4.5 }))),
    svg("text", { x: x(line.points[line.points.length - 1][0]) + 10, y: ends[index] + 4 }, line.label)));
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "trace-chart", role: "img", "aria-label": "Share of the next tokens that are right, by the tokens that were given. The table below has the figures." },
    rules, prefixes.map((prefix) => svg("text", { x: x(prefix), y: height - bottom + 18, class: "middle" }, String(prefix))),
    svg("text", { x: (left + width - right) / 2, y: height - 4, class: "middle" }, "tokens of the document that are given"), drawn);
};

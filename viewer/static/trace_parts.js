// Parts of the page "Memorization": documents with a passage, a text with highlighted spans.

const traceSplits = { train: "training text", val: "held-out text" };

// Link to a document, unless it is in another run's shards (train.mixture), whose texts are not here.
const traceAddress = (one) => {
  const name = h("bdi", { class: "url" }, plainText(one.url || one.id || "document " + one.number));
  return one.source ? name : h("a", { href: "#data?" + new URLSearchParams({ view: "document", number: one.number }) }, name);
};
const traceOf = (one) => (one.source ? " of " + plainText(one.source) : "");

// Documents with a passage, in its context.
const traceDocuments = (documents, count) => {
  if (!documents.length) return note("No document to show.");
  const items = documents.map((one) => h("li", {},
    h("p", { class: "trace-source" },
      traceAddress(one),
      h("span", {}, ` · ${traceSplits[one.split] || one.split}${traceOf(one)}, token ${whole(one.offset + 1)} of ${whole(one.tokens)}`)),
    h("blockquote", { dir: "auto" },
      one.from_start ? null : "… ", plainText(one.before), h("mark", {}, plainText(one.match)), plainText(one.after), one.to_end ? null : " …")));
  const left = count - documents.length;
  return [h("ul", { class: "trace-documents" }, items), left > 0 ? note(`${plural(left, "more occurrence")} not shown.`) : null];
};

// A text whose parts {text, spans: [number, ...]} are highlighted if spans cover them; `choose(number)` shows one, `describe`
// is its description.
const tracePassage = (label, parts, spans, promptCharacters, choose, describe = (number) => `occurs ${plural(spans[number].count, "time")} in the training text`) => {
  let read = 0;
  const marks = [];
  const nodes = parts.map((part) => {
    const begin = read;
    read += part.text.length;
    if (!part.spans.length) {
      const cut = Math.max(0, Math.min(part.text.length, promptCharacters - begin));
      return [cut ? h("span", { class: "trace-prompt" }, plainText(part.text.slice(0, cut))) : null, plainText(part.text.slice(cut))];
    }
    const rarest = part.spans.reduce((best, number) => (spans[number].bits > spans[best].bits ? number : best));
    const act = () => choose(part.spans[(part.spans.indexOf(Number(node.dataset.at ?? -1)) + 1) % part.spans.length] ?? rarest, node);
    const node = h("span", {
      class: "trace-span", role: "button", tabindex: "0", "aria-pressed": "false",
      "aria-label": `${plainText(part.text)}: ${describe(rarest)}`,
      on: { click: act, keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); } } },
    }, plainText(part.text));
    paint(node, Math.min(1, 0.3 + spans[rarest].bits / 125));
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

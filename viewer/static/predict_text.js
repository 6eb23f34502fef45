// The text with the loss of each token, the model's alternatives, and the running sum.

// Running bits per byte of the model and of gzip.
const predictChart = () => {
  const chart = lineChart("Bits per byte so far", "fewer is better; gzip includes its 18 bytes of header and checksum");
  const node = h("div", { class: "predict-chart" }, chart);
  let ends = [];
  node.set = (score) => {
    let bytes = 0;
    ends = score.tokens.map((token) => {
      bytes += token.bytes.length / 2;
      return bytes;
    });
    const points = (values) => values.flatMap((value, i) => (value === null ? [] : [[ends[i], value]]));
    const last = Math.max(2, ...[score.bits_per_byte, score.gzip_bits_per_byte].map((values) => values.at(-1) ?? 0));
    chart.draw({ x: { name: "byte" }, y: { zero: true, most: 1.3 * last, show: (value) => decimals(value) }, series: [
      { name: "this model", colour: "var(--accent)", points: points(score.bits_per_byte) }, { name: "gzip", colour: "var(--second)", dash: "6 4", points: points(score.gzip_bits_per_byte) }] });
  };
  node.look = (index) => chart.readAt(ends[index]);
  return node;
};

// Texts of tokens for reading: a character whose bytes are in several tokens is shown whole, in the first of them.
const predictTexts = (tokens) => {
  const bytes = tokens.map((token) => token.bytes.replace(/../g, (two) => String.fromCharCode(parseInt(two, 16))));
  const texts = tokens.map((token) => token.text);
  const isWhole = (part) => {
    try { return Boolean(new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(part, (byte) => byte.charCodeAt(0)))); } catch { return false; }
  };
  for (let i = 0; i < tokens.length; i += 1) {
    if (isWhole(bytes[i])) continue;
    const end = [2, 3, 4].map((count) => i + count).find((one) => one <= tokens.length && isWhole(bytes.slice(i, one).join("")));
    if (!end) continue;
    texts[i] = tokensVisible(bytes.slice(i, end).join(""));
    texts.fill("\u200a", i + 1, end); // a hair space: it has a color, and can be pointed at
    i = end - 1;
  }
  return texts;
};

// A node with `set(score, vocabulary)`. `replace(index, id)`: truncate the text before token `index`, and append `id`; null
// if the text cannot change.
const predictText = (replace) => {
  const place = h("div", {});
  const said = h("p", { role: "status" });
  const others = h("div", {});
  const details = h("div", { class: "predict-details" }, said, others);
  const chart = predictChart();
  const numbers = h("button", { type: "button", "aria-pressed": "false", on: { click: () => {
    const on = numbers.getAttribute("aria-pressed") !== "true";
    numbers.setAttribute("aria-pressed", String(on));
    place.classList.toggle("with-bits", on);
  } } }, "Show bits below tokens");
  const node = h("div", {}, place, h("p", {}, numbers), details, chart);

  const describe = (token, index) => {
    const share = 2 ** -token.bits;
    const alternative = ([id, text, probability]) => h("li", {}, h("button", {
      type: "button", class: "predict-bar", style: { "--share": 100 * probability + "%", "--own": "0%" }, disabled: !replace || special.has(id),
      "aria-label": `${replace ? "Continue from here with " : ""}${text}, ${predictShare(probability)}`, on: { click: () => replace(index, id) },
    }, h("code", {}, text), h("span", { class: "predict-track" }), h("span", { class: "predict-number" }, predictShare(probability))));
    said.replaceChildren(h("code", {}, token.text), `: `, h("b", {}, decimals(token.bits) + " bits"), `, probability ${predictShare(share)}, ` + (token.rank === 1 ? "the model's first guess." : `guess number ${whole(token.rank)}.`));
    others.replaceChildren(...(token.top.length ? [note("The likeliest tokens here", replace ? ". Choose one to continue from here:" : ":"), h("ol", { class: "predict-bars" }, token.top.map(alternative))] : []));
  };

  let special = new Set();
  node.set = (score, vocabulary) => {
    special = vocabulary.special;
    said.replaceChildren();
    others.replaceChildren(h("p", { class: "note" }, score.tokens.length ? "Point at a token, or select it with the arrow keys, to see its loss and the likeliest tokens." : "The text is empty. The bars show how documents begin."));
    if (!score.tokens.length) {
      place.replaceChildren();
      chart.hidden = true;
      return;
    }
    const texts = predictTexts(score.tokens);
    const strip = tokenStrip("The text, colored by loss.", texts.map((text) => ({ text: tokensLines(text) })), {
      decorate: (span, _, index) => { span.classList.toggle("predict-rest", texts[index] === "\u200a"); const { bits } = score.tokens[index]; paint(span, surprise(bits)); span.dataset.bits = decimals(bits, 1); },
      choose: (index) => { if (index >= 0) { describe(score.tokens[index], index); chart.look(index); } },
      take: () => details.querySelector("button:not(:disabled)")?.focus(),
    });
    place.replaceChildren(strip, score.dropped ? h("p", { class: "note" }, `The model reads at most ${plural(score.tokens.length, "token")}; ${plural(score.dropped, "more token")} omitted.`) : "");
    chart.hidden = !score.bytes;
    if (score.bytes) chart.set(score);
  };
  return node;
};

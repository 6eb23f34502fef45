// The text with the loss of each token, the model's alternatives, and the running sum.

const PREDICT_PLOT = { width: 600, height: 130 };

// Running bits per byte of the model and of gzip over the bytes, as lines with their last values.
const predictChart = (score) => {
  const { width, height } = PREDICT_PLOT;
  let bytes = 0;
  const ends = score.tokens.map((token) => (bytes += token.bytes.length / 2));
  // gzip's header dominates at first: its line starts above the chart.
  const most = 2 * Math.ceil(0.6 * Math.max(2, ...[score.bits_per_byte, score.gzip_bits_per_byte].map((values) => values[values.length - 1] ?? 0)));
  const points = (values) => values.flatMap((value, i) => (value === null ? [] : [`${((width * ends[i]) / bytes).toFixed(1)},${(height * (1 - Math.min(value, most) / most)).toFixed(1)}`])).join(" ");
  const last = (values) => decimals(values[values.length - 1] ?? NaN);
  const cursor = svg("line", { class: "predict-cursor", x1: -9, x2: -9, y1: 0, y2: height });
  const told = h("output", { class: "note" });
  const node = h("figure", { class: "predict-chart" },
    h("figcaption", {}, "Bits for each byte so far. ", h("span", { class: "predict-model" }, `this model ${last(score.bits_per_byte)}`), h("span", { class: "predict-gzip" }, `gzip ${last(score.gzip_bits_per_byte)}`), " Fewer is better: who predicts well can compress well. gzip's has the 18 bytes of its header and checksum in it."),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `Running bits per byte over ${plural(bytes, "byte")}: this model ends at ${last(score.bits_per_byte)}, gzip at ${last(score.gzip_bits_per_byte)}.` },
      [0.25, 0.5, 0.75, 1].map((share) => svg("line", { class: "predict-grid", x1: 0, x2: width, y1: height * (1 - share), y2: height * (1 - share) })),
      svg("polyline", { class: "predict-line gzip", points: points(score.gzip_bits_per_byte) }),
      svg("polyline", { class: "predict-line", points: points(score.bits_per_byte) }), cursor),
    h("p", { class: "predict-axis note" }, h("span", {}, "0 bytes"), h("span", {}, `from 0 to ${most} bits, a line at each ${most / 4}`), h("span", {}, plural(bytes, "byte"))), told);
  node.look = (index) => {
    const x = (width * ends[index]) / bytes;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    told.textContent = `After ${plural(ends[index], "byte")}: this model ${decimals(score.bits_per_byte[index] ?? NaN)}, gzip ${decimals(score.gzip_bits_per_byte[index] ?? NaN)} bits per byte.`;
  };
  return node;
};

// A node with `set(score, vocabulary)`. `goOn(index, id)`: truncate the text before token `index`, and append `id`.
const predictText = (goOn) => {
  const place = h("div", {});
  const said = h("p", { role: "status" });
  const others = h("div", {});
  const details = h("div", { class: "predict-details" }, said, others);
  const chartPlace = h("div", {});
  const numbers = h("button", { type: "button", "aria-pressed": "false", on: { click: () => {
    const on = numbers.getAttribute("aria-pressed") !== "true";
    numbers.setAttribute("aria-pressed", String(on));
    place.classList.toggle("with-bits", on);
  } } }, "Write the bits below each token");
  const node = h("div", {}, place, h("p", {}, numbers), details, chartPlace);

  const tell = (token, index) => {
    const share = 2 ** -token.bits;
    const alternative = ([id, text, probability]) => h("li", {}, h("button", {
      type: "button", class: "predict-bar", style: { "--share": 100 * probability + "%", "--own": "0%" }, disabled: special.has(id),
      "aria-label": `Go on from here with ${text}, ${predictShare(probability)}`, on: { click: () => goOn(index, id) },
    }, h("code", {}, text), h("span", { class: "predict-track" }), h("span", { class: "predict-number" }, predictShare(probability))));
    said.replaceChildren(h("code", {}, token.text), ` surprised the model by `, h("b", {}, decimals(token.bits) + " bits"), `: it gave it ${predictShare(share)}, and ` + (token.rank === 1 ? "nothing a higher chance." : `${plural(token.rank - 1, "other token")} a higher chance.`));
    others.replaceChildren(...(token.top.length ? [h("p", { class: "note" }, "What it expected here. Click one, and the text goes on from here with it:"), h("ol", { class: "predict-bars" }, token.top.map(alternative))] : []));
  };

  let special = new Set();
  node.set = (score, vocabulary) => {
    special = vocabulary.special;
    said.replaceChildren();
    others.replaceChildren(h("p", { class: "note" }, score.tokens.length ? "Point at a token, or reach it by the arrow keys: its surprise, and what the model expected in its place." : "The text is empty. The bars show how documents begin."));
    if (!score.tokens.length) {
      place.replaceChildren();
      chartPlace.replaceChildren();
      return;
    }
    const chart = predictChart(score);
    const strip = tokenStrip("The text, coloured by surprise.", score.tokens.map((token) => ({ text: tokensLines(token.text) })), {
      decorate: (span, _, index) => { const { bits } = score.tokens[index]; paint(span, surprise(bits)); span.dataset.bits = decimals(bits, 1); },
      choose: (index) => { if (index >= 0) { tell(score.tokens[index], index); chart.look(index); } },
      take: () => details.querySelector("button:not(:disabled)")?.focus(),
    });
    place.replaceChildren(strip, score.dropped ? h("p", { class: "note" }, `The model reads ${plural(score.tokens.length, "token")} at most; ${plural(score.dropped, "token")} behind them ${score.dropped === 1 ? "is" : "are"} left out here.`) : "");
    chartPlace.replaceChildren(score.bytes ? chart : "");
  };
  return node;
};

// Next-token distribution as bars, and the sliders that change it.

const PREDICT_BARS = 12;
const PREDICT_MORE = 24;
const PREDICT_MOST_BARS = 300;

// `changed(settings)` is called when a slider moves.
const predictSliders = (settings, changed) => {
  const ends = (name) => ({ min: PREDICT_ENDS[name][0], max: PREDICT_ENDS[name][1] });
  const made = {
    temperature: slider("Temperature", { ...ends("temperature"), step: 0.05, value: settings.temperature, show: (value) => (value ? value.toFixed(2) : "0 (greedy)"), on: (value) => move({ temperature: value }) }),
    topK: slider("Top-k", { ...ends("topK"), value: settings.topK, show: (value) => (value ? whole(value) : "off"), on: (value) => move({ topK: value }) }),
    topP: slider("Top-p", { ...ends("topP"), step: 0.01, value: settings.topP, show: (value) => (value < 1 ? value.toFixed(2) : "off"), on: (value) => move({ topP: value }) }),
    minP: slider("Min-p", { ...ends("minP"), step: 0.01, value: settings.minP, show: (value) => (value ? value.toFixed(2) : "off"), on: (value) => move({ minP: value }) }),
  };
  const move = (some) => { Object.assign(settings, some); changed(settings); };
  const back = () => {
    for (const [name, value] of Object.entries(PREDICT_PLAIN)) made[name].set(value);
    move(PREDICT_PLAIN);
  };
  return h("div", { class: "predict-sliders", role: "group", "aria-label": "Sampling" },
    Object.values(made),
    note("Temperature flattens (above 1) or sharpens (below 1) the distribution. Top-k keeps the k likeliest tokens, top-p the fewest that together have that probability, min-p those with at least that fraction of the highest probability."),
    h("button", { type: "button", on: { click: back } }, "Reset"));
};

// A node with `set(logits, vocabulary, settings)`; `take(id)` is called with the clicked token.
const predictBars = (take) => {
  const list = h("ol", { class: "predict-bars" });
  const summary = h("p", { class: "note predict-summary", role: "status", "aria-live": "polite" });
  const more = h("button", { type: "button", on: { click: () => { count += PREDICT_MORE; draw(); } } }, "More tokens");
  const node = h("div", {}, summary, list, more);
  let count = PREDICT_BARS;
  let given = null;

  const bar = (id, own, share, most) => {
    const { vocabulary } = given;
    const isEnd = vocabulary.special.has(id);
    const text = tokensVisible(vocabulary.part(id));
    const out = share === 0;
    return h("li", {}, h("button", {
      type: "button", class: "predict-bar" + (out ? " out" : ""), disabled: isEnd, "data-id": id,
      style: { "--share": (100 * share) / most + "%", "--own": (100 * own) / most + "%" },
      "aria-label": `${text}, ${predictShare(share)}${out ? ", excluded" : ""}, without sampling settings ${predictShare(own)}${isEnd ? ", the end of a document" : ""}`,
      on: { click: () => take(id) },
    }, h("code", {}, text), h("span", { class: "predict-track" }), h("span", { class: "predict-number" }, out ? "excluded" : predictShare(share))));
  };

  const draw = () => {
    const { logits, settings } = given;
    const order = predictOrder(logits);
    const own = predictReshape(logits, PREDICT_PLAIN);
    const shares = predictReshape(logits, settings);
    const kept = shares.reduce((sum, share) => sum + (share > 0), 0);
    const bits = predictEntropy(shares);
    const focus = list.contains(document.activeElement) ? [...list.querySelectorAll("button")].indexOf(document.activeElement) : -1;
    const shown = order.subarray(0, count);
    const most = shown.reduce((largest, id) => Math.max(largest, own[id], shares[id]), 0); // the longest bar fills its track
    const rows = Array.from(shown, (id) => bar(id, own[id], shares[id], most));
    list.replaceChildren(...rows);
    if (focus >= 0) list.querySelectorAll("button")[Math.min(focus, rows.length - 1)]?.focus();
    summary.textContent = `${whole(kept)} of ${plural(logits.length, "token")} can be sampled. Entropy: ${decimals(bits)} bits, like ${plural(2 ** bits, "equally likely token")}. Bars are scaled to the largest; the vertical marks are the probabilities without the sampling settings.`;
    more.hidden = count >= Math.min(order.length, PREDICT_MOST_BARS);
  };
  node.set = (logits, vocabulary, settings, reset) => {
    given = { logits, vocabulary, settings };
    if (reset) count = PREDICT_BARS;
    draw();
  };
  return node;
};

// The residual stream of one token, and the logit lens: next-token predictions of each layer.

const insideSpan = (value, most, family) =>
  h("span", { class: "inside-bar inside-bar-" + family, "aria-hidden": "true", style: { "--share": ((100 * value) / most).toFixed(2) + "%" } });

// Contributions of attention and MLP in each layer at the selected token.
const insideStream = (view) => {
  const { data } = view;
  const said = h("output", { class: "inside-read", "aria-live": "polite" });
  const body = h("tbody");
  const head = (text) => h("th", { scope: "col" }, text);
  const node = h("div", {}, said, scroller("Residual stream", h("table", { class: "inside-stream" }, h("thead", {}, h("tr", {}, head("layer"), head("attention adds"), head("MLP adds"), head("stream after it"))), body)),
    note("Lengths are root mean squares over the channels. An addition may point against the stream, which then grows less, or shrinks."));
  const cell = (value, most, family) => h("td", {}, insideSpan(value, most, family), h("span", { class: "inside-number" }, decimals(value, value < 10 ? 2 : 1)));
  node.update = (changed) => {
    if (changed && !changed.includes("token")) return;
    const at = view.token;
    const value = (array, layer) => array.data[layer * data.count + at];
    const layers = Array.from({ length: data.layers }, (_, layer) => layer);
    const all = layers.flatMap((layer) => [value(data.added.attention, layer), value(data.added.mlp, layer)]);
    const streams = Array.from({ length: data.layers + 1 }, (_, layer) => value(data.stream, layer));
    const most = Math.max(...all, ...streams, 1e-9);
    const row = (name, cells) => h("tr", {}, h("th", { scope: "row" }, name), cells);
    body.replaceChildren(
      row("embedding", [h("td"), h("td"), cell(streams[0], most, "embedding")]),
      ...layers.map((layer) => row(layer + 1, [cell(all[2 * layer], most, "attention"), cell(all[2 * layer + 1], most, "mlp"), cell(streams[layer + 1], most, "embedding")])));
    const largest = all.indexOf(Math.max(...all));
    said.textContent = `Largest addition for “${data.tokens[at]}”: ${largest % 2 ? "the MLP" : "attention"} of layer ${Math.floor(largest / 2) + 1}, ${decimals(all[largest])}.`;
  };
  node.update();
  return node;
};

const insideStage = (layer) => (layer === 0 ? "embedding" : "layer " + layer);

// Rows are the stages of the stream, columns the tokens; cells are the most likely next tokens.
const insideLens = (view) => {
  const { data } = view;
  const last = data.lens.length - 1;
  const read = h("div", { class: "inside-answer" });
  const cells = data.lens.map((row, layer) => row.map((best, at) => {
    const [id, text, probability] = best[0];
    const changed = layer > 0 && data.lens[layer - 1][at][0][0] !== id;
    const right = at + 1 < data.count && data.ids[at + 1] === id;
    const cell = h("td", {
      class: "inside-guess" + (changed ? " inside-changed" : "") + (right ? " inside-right" : ""), tabindex: "-1", "data-layer": layer, "data-at": at,
      "aria-label": `${insideStage(layer)}, after ${data.tokens[at]}: ${text}, ${percent(probability)}${changed ? ", changed" : ""}${right ? ", correct" : ""}`,
    }, h("bdi", {}, text), h("small", {}, (right ? "✓ " : "") + Math.round(100 * probability)));
    paint(cell, probability);
    return cell;
  }));
  const heads = data.tokens.map((text, at) => h("th", { scope: "col", "data-at": at }, h("bdi", {}, text)));
  const rows = cells.map((row, layer) => h("tr", {}, h("th", { scope: "row" }, insideStage(layer)), row));
  const came = h("tr", { class: "inside-came" }, h("th", { scope: "row" }, "actual token"), data.tokens.map((_, at) => h("td", {}, h("bdi", {}, at + 1 < data.count ? data.tokens[at + 1] : "?"))));
  const table = h("table", { class: "inside-lens", role: "grid", "aria-label": "Likeliest next token at each layer and token. Arrow keys move the selection." },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "token"), heads)), h("tbody", {}, rows), h("tfoot", {}, came));
  const layers = slider("after", { min: 0, max: last, value: view.lens, show: (layer) => insideStage(layer), on: (layer) => view.set({ lens: layer }) });
  const look = (event) => {
    const cell = event.target.closest(".inside-guess");
    if (cell) view.set({ token: Number(cell.dataset.at), lens: Number(cell.dataset.layer) });
  };
  table.addEventListener("click", look);
  table.addEventListener("keydown", (event) => {
    const move = arrowJump(event, GRID_JUMPS);
    if (!move) return;
    view.set({ lens: bounded(view.lens + move[0], last), token: bounded(view.token + move[1], data.count - 1) });
    cells[view.lens][view.token].focus({ preventScroll: true });
  });

  const list = (layer, at) => {
    const best = data.lens[layer][at];
    const came_ = at + 1 < data.count ? data.ids[at + 1] : null;
    const share = came_ !== null ? data.came.data[layer * data.count + at] : null;
    return [tokenBars(best.map(([id, text, probability]) => [text, probability, id === came_ ? "✓ " : ""])), share === null ? null : h("p", { class: "inside-truth" }, "“", h("bdi", {}, data.tokens[at + 1]), `” is the actual token: ${percent(share)} here.`)];
  };
  const chart = lineChart("Probability of the actual next token", "by layer");
  let marked = [];
  const wide = h("div", { class: "scroll inside-wide" }, table);
  const node = h("div", {}, layers, wide, h("p", { class: "note" }, "▲ differs from the layer before. ✓ the actual next token. The small number, and the color, are the probability in percent."), h("div", { class: "inside-two" }, h("div", { "aria-live": "polite" }, read), chart));
  node.update = () => {
    for (const one of marked) one.classList.remove("here");
    for (const cell of table.querySelectorAll('[tabindex="0"]')) cell.tabIndex = -1;
    marked = [rows[view.lens], heads[view.token], cells[view.lens][view.token]];
    for (const one of marked) one.classList.add("here");
    marked[2].tabIndex = 0;
    layers.set(view.lens);
    keepInSight(wide, marked[2]);
    const where = view.lens === last ? "Prediction" : view.lens ? `Prediction after layer ${view.lens}` : "Prediction from the embedding";
    read.replaceChildren(h("h3", {}, where + " for the token after “", h("bdi", {}, data.tokens[view.token]), "”"), ...list(view.lens, view.token).filter(Boolean));
    const came = view.token + 1 < data.count ? data.lens.map((_, layer) => [layer, data.came.data[layer * data.count + view.token]]) : [];
    chart.draw({ x: { name: "layer", ticks: data.lens.map((_, layer) => layer).filter((layer) => layer % Math.ceil(data.lens.length / 12) === 0) }, y: { zero: true, most: 1, show: percent }, at: view.lens, series: [{ name: "probability", colour: "var(--accent)", dots: true, points: came }] });
  };
  node.update();
  return node;
};

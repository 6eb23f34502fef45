// The residual stream of one token, and the logit lens: next-token predictions of each layer.

const insideSpan = (value, most, family) =>
  h("span", { class: "inside-bar inside-bar-" + family, "aria-hidden": "true", style: { "--share": ((100 * value) / most).toFixed(2) + "%" } });

// The stream as a river: its width is the norm of the vector, with the contributions of attention and MLP as tributaries.
const INSIDE_RIVER = { high: 250, left: 12, bank: 26 };
const insideRiver = (view) => {
  const { data } = view;
  const { high, left, bank } = INSIDE_RIVER;
  const at = (array, layer) => array.data[layer * data.count + view.token];
  const stages = [at(data.stream, 0)];
  for (let layer = 0; layer < data.layers; layer++) stages.push(at(data.behind, layer), at(data.stream, layer + 1));
  const step = Math.max(26, Math.min(150, 940 / (stages.length + 0.5)));
  const wide = left + step * (stages.length + 0.4);
  const added = Array.from({ length: data.layers }, (_, layer) => [at(data.added.attention, layer), at(data.added.mlp, layer)]).flat();
  const scale = (high / 2 - bank - 34) / Math.max(...stages, ...added, 1e-9);
  const middle = high / 2;
  const x = (stage) => left + step * (stage + 0.5);
  const edge = (sign) => stages.map((value, stage) => [x(stage), middle + sign * value * scale]);
  const curve = (points) => points.map(([px, py], one) => (one ? `C${px - step / 2},${points[one - 1][1]} ${px - step / 2},${py} ${px},${py}` : `${px},${py}`)).join("");
  const [top, bottom] = [edge(-1), edge(1)];
  const back = [...bottom].reverse().map(([px, py], one, all) => (one ? `C${px + step / 2},${all[one - 1][1]} ${px + step / 2},${py} ${px},${py}` : `L${px},${py}`)).join("");
  const end = x(stages.length - 1) + step * 0.45;
  const river = `M${left},${top[0][1]}L${curve(top)}L${end},${top.at(-1)[1]}L${end + 10},${middle}L${end},${bottom.at(-1)[1]}${back}L${left},${bottom[0][1]}Z`;
  const tributary = (index) => {
    const family = index % 2 ? "mlp" : "attention";
    const sign = index % 2 ? 1 : -1;
    const thick = Math.max(1, added[index] * scale * 2);
    const half = Math.min(thick, step * 0.8) / 2;
    const [from, to] = [x(index) + step * 0.3, x(index + 1)];
    const [outer, inner] = [middle + sign * (high / 2 - bank), middle + sign * Math.max(0, stages[index + 1] * scale - Math.min(thick, stages[index + 1] * scale))];
    const last = middle + sign * stages[index + 1] * scale;
    const path = `M${from - half},${outer}C${from - half},${last} ${from},${inner} ${to},${inner}L${to},${last}C${from + half + 2},${last} ${from + half},${last} ${from + half},${outer}Z`;
    return [svg("path", { class: "inside-" + family, d: path }),
      svg("text", { class: "inside-flow-number", x: from, y: outer + (sign > 0 ? 13 : -5), "text-anchor": "middle" }, decimals(added[index], added[index] < 10 ? 2 : 1))];
  };
  return svg("svg", { class: "inside-river", viewBox: `0 0 ${wide.toFixed(0)} ${high}`, style: { "min-width": Math.max(Math.min(wide, 640), 30 * stages.length) + "px" }, role: "img", "aria-label": "Residual stream of the selected token; the table below has its numbers." },
    svg("path", { class: "inside-embedding inside-water", d: river }), added.map((_, index) => tributary(index)),
    Array.from({ length: data.layers }, (_, layer) => svg("text", { class: "inside-flow-name", x: x(2 * layer + 2) + step * 0.25, y: middle + 4, "text-anchor": "middle" }, decimals(stages[2 * layer + 2], stages[2 * layer + 2] < 10 ? 2 : 1))),
    Array.from({ length: data.layers }, (_, layer) => svg("text", { x: x(2 * layer + 1), y: 10, "text-anchor": "middle" }, (data.layers > 12 ? "" : "layer ") + (layer + 1))));
};

// Contributions of attention and MLP in each layer at the selected token.
const insideStream = (view) => {
  const { data } = view;
  const said = h("output", { class: "inside-read", "aria-live": "polite" });
  const body = h("tbody");
  const river = scroller("Residual stream");
  const head = (text) => h("th", { scope: "col" }, text);
  const key = (family, text) => h("span", {}, h("i", { class: "inside-key inside-" + family }), text);
  const node = h("div", {}, said, river,
    h("p", { class: "inside-legend" }, key("embedding", "residual stream; its width is the length of the vector"), key("attention", "added by attention (above)"), key("mlp", "added by the MLP (below)")),
    h("details", { class: "as-table" }, h("summary", {}, "Show as a table"), scroller("Residual stream as a table", h("table", { class: "inside-stream" }, h("thead", {}, h("tr", {}, head("layer"), head("attention adds"), head("MLP adds"), head("stream after it"))), body))),
    h("p", { class: "note" }, "Lengths are root mean squares over the channels. An addition may point against the stream, which then grows less, or shrinks."));
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
    river.replaceChildren(insideRiver(view));
    body.replaceChildren(
      row("embedding", [h("td"), h("td"), cell(streams[0], most, "embedding")]),
      ...layers.map((layer) => row(layer + 1, [cell(all[2 * layer], most, "attention"), cell(all[2 * layer + 1], most, "mlp"), cell(streams[layer + 1], most, "embedding")])));
    const largest = all.indexOf(Math.max(...all));
    said.textContent = `Largest addition for “${data.tokens[at]}”: ${largest % 2 ? "the MLP" : "attention"} of layer ${Math.floor(largest / 2) + 1}, ${decimals(all[largest])}.`;
  };
  node.update();
  return node;
};

const insideStage = (data, layer) => (layer === 0 ? "embedding" : "layer " + layer);

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
      "aria-label": `${insideStage(data, layer)}, after ${data.tokens[at]}: ${text}, ${percent(probability)}${changed ? ", changed" : ""}${right ? ", correct" : ""}`,
    }, h("bdi", {}, text), h("small", {}, (right ? "✓ " : "") + Math.round(100 * probability)));
    cell.style.backgroundColor = heat(INSIDE_UNDER_TEXT * probability);
    return cell;
  }));
  const heads = data.tokens.map((text, at) => h("th", { scope: "col", "data-at": at }, h("bdi", {}, text)));
  const rows = cells.map((row, layer) => h("tr", {}, h("th", { scope: "row" }, insideStage(data, layer)), row));
  const came = h("tr", { class: "inside-came" }, h("th", { scope: "row" }, "actual token"), data.tokens.map((_, at) => h("td", {}, h("bdi", {}, at + 1 < data.count ? data.tokens[at + 1] : "?"))));
  const table = h("table", { class: "inside-lens", role: "grid", "aria-label": "Likeliest next token at each layer and token. Arrow keys move the selection." },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "token"), heads)), h("tbody", {}, rows), h("tfoot", {}, came));
  const layers = slider("after", { min: 0, max: last, value: view.lens, show: (layer) => insideStage(data, layer), on: (layer) => view.set({ lens: layer }) });
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
    const items = best.map(([id, text, probability]) => h("li", {}, h("span", { class: "inside-meter", style: { "--share": (100 * probability).toFixed(1) + "%" } }), h("bdi", {}, text), h("span", {}, (id === came_ ? "✓ " : "") + percent(probability))));
    const share = came_ !== null ? data.came.data[layer * data.count + at] : null;
    return [h("ol", { class: "inside-best" }, items), share === null ? null : h("p", { class: "inside-truth" }, "“", h("bdi", {}, data.tokens[at + 1]), `” is the actual token: ${percent(share)} here.`)];
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
    insideKeepInSight(wide, marked[2]);
    const where = view.lens === last ? "Prediction" : view.lens ? `Prediction after layer ${view.lens}` : "Prediction from the embedding";
    read.replaceChildren(h("h3", {}, where + " for the token after “", h("bdi", {}, data.tokens[view.token]), "”"), ...list(view.lens, view.token).filter(Boolean));
    const came = view.token + 1 < data.count ? data.lens.map((_, layer) => [layer, data.came.data[layer * data.count + view.token]]) : [];
    chart.draw({ x: { name: "layer", ticks: data.lens.map((_, layer) => layer).filter((layer) => layer % Math.ceil(data.lens.length / 12) === 0) }, y: { zero: true, most: 1, show: percent }, at: view.lens, series: [{ name: "probability", colour: "var(--accent)", dots: true, points: came }] });
  };
  node.update();
  return node;
};

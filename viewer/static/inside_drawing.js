// Drawing of one part: its subparts in the order of the forward pass, with areas proportional to parameters.

const INSIDE_ROWS = 16; // more blocks are drawn as tiles
const INSIDE_LINE = 18; // px, height of a ribbon
const INSIDE_LINES = 9; // full lines for the whole network

const insideButton = (view, node, attributes, ...children) =>
  h("button", {
    ...attributes, type: "button", class: "inside-part " + (attributes.class || ""),
    "aria-label": `${insideTitle(node)}: ${plural(node.parameters, "parameter")}${node.shape ? ", " + insideShape(node) : ""}. Zoom in.`,
    on: { click: () => view.zoom(node.path) },
  }, ...children);

// Parameters as a ribbon of fixed height, wrapped if it is too long: [[family, parameters], ...].
const insideRibbon = (pieces, unit, width) => {
  const lines = [];
  let left = 0;
  for (const [family, parameters] of pieces) {
    let length = Math.max(parameters * unit, 1.5);
    while (length > 0.01) {
      if (left < 0.5) {
        lines.push([]);
        left = width;
      }
      const part = Math.min(length, left);
      lines.at(-1).push([family, part]);
      left -= part;
      length -= part;
    }
  }
  const line = (one, at) => {
    let x = 0;
    return one.map(([family, part]) => {
      const rect = svg("rect", { class: "inside-" + family, x: x.toFixed(2), y: at * (INSIDE_LINE + 2), width: part.toFixed(2), height: INSIDE_LINE });
      x += part;
      return rect;
    });
  };
  const wide = Math.max(...lines.map((one) => one.reduce((sum, [, part]) => sum + part, 0)), 2);
  const high = lines.length * (INSIDE_LINE + 2);
  return svg("svg", { class: "inside-ribbon", width: wide.toFixed(1), height: high, "aria-hidden": "true" }, lines.map(line));
};

const insidePieces = (node) => {
  const pieces = new Map();
  for (const leaf of insideLeaves(node)) pieces.set(leaf.family, (pieces.get(leaf.family) || 0) + leaf.parameters);
  return [...pieces];
};

// A matrix in its proportions; a very long one is cut into adjacent strips.
const insideSheet = (leaf, scale, most, highest = most) => {
  const [rows, columns] = leaf.shape.length > 1 ? leaf.shape.slice(-2) : [1, leaf.shape[0]];
  let strips = 1;
  let [wide, high] = [columns * scale, rows * scale];
  const across = wide > high;
  if (leaf.shape.length > 1 && (wide > most + 0.01 || high > highest + 0.01)) {
    const [long, short] = across ? [wide, high] : [high, wide];
    strips = Math.max(1, Math.ceil(Math.sqrt(long / Math.max(short, 0.5))));
    [wide, high] = across ? [long / strips, short] : [short, long / strips];
    const [along, beside] = across ? [most, highest] : [highest, most];
    const fit = Math.min(1, along / (long / strips), beside / (strips * short * 1.06));
    [wide, high] = [wide * fit, high * fit];
  }
  [wide, high] = [Math.max(wide, 2), Math.max(high, leaf.shape.length > 1 ? 2 : 3)];
  const gap = strips > 1 ? Math.max(0.4, Math.min(wide, high) * 0.06) : 0;
  const total = across ? [wide, strips * (high + gap)] : [strips * (wide + gap), high];
  const rects = Array.from({ length: strips }, (_, at) =>
    svg("rect", { class: "inside-" + leaf.family + (leaf.of ? " inside-faint" : ""), x: across ? 0 : at * (wide + gap), y: across ? at * (high + gap) : 0, width: wide, height: high }));
  const picture = svg("svg", { class: "inside-sheet", width: total[0].toFixed(1), height: total[1].toFixed(1), "aria-hidden": "true" }, rects, strips > 1 ? [] : insideStripes(leaf, wide, high));
  picture.strips = strips;
  return picture;
};

// Boundaries of heads in the matrix; the selected one is highlighted.
const insideStripes = (leaf, wide, high) => {
  const whole_ = leaf.of || leaf;
  const axis = insideHeadAxis(whole_);
  const count = leaf.count || leaf.headCount || 0;
  if (axis < 0 || count < 2 || whole_.shape.length < 2) return [];
  const down = axis === 0;
  const step = (down ? high : wide) / count;
  if (step < 3 && !leaf.of) return [];
  const lines = Array.from({ length: step < 3 ? 0 : count - 1 }, (_, at) => {
    const place = ((at + 1) * step).toFixed(2);
    return svg("line", { class: "inside-cut", x1: down ? 0 : place, x2: down ? wide : place, y1: down ? place : 0, y2: down ? place : high });
  });
  if (leaf.of) lines.unshift(svg("rect", { class: "inside-slice inside-" + leaf.family, x: down ? 0 : leaf.at * step, y: down ? leaf.at * step : 0, width: down ? wide : step, height: down ? step : high }));
  return lines;
};

const insideHeadCount = (leaf) => {
  const attention = insideChain(leaf).find((one) => one.kind === "attention");
  if (!attention || insideHeadAxis(leaf) < 0) return 0;
  return leaf.axes[insideHeadAxis(leaf)] === "heads" ? attention.heads : attention.kv_heads || attention.heads;
};

const insideMatrix = (view, leaf, scale, most) => {
  const drawn = leaf.of ? { ...leaf.of, of: leaf.of, at: leaf.at, count: leaf.count } : { ...leaf, headCount: insideHeadCount(leaf) };
  const above = leaf.above && leaf.name === "weight" ? leaf.above : leaf;
  return insideButton(view, leaf, { class: "inside-matrix" }, insideSheet(drawn, scale, most), h("span", { class: "inside-tag" }, insideTitle(above), h("small", {}, insideShape(leaf))));
};

// Subparts of a part: rows of the flow, with each block separately.
const insideStages = (node) => {
  if (!node.children.length) return [];
  return node.children.flatMap((child) => (child.kind === "blocks" ? insideStages(child) : [child]));
};

// Pixels per row or column: all matrices of a row are next to each other, if that leaves them large enough.
const insideScaleOf = (rows, width) => {
  const sizes = rows.map((leaves) => leaves.filter((leaf) => leaf.shape.length > 1).map((leaf) => (leaf.of || leaf).shape.slice(-2))).filter((row) => row.length);
  if (!sizes.length) return width / Math.max(1, ...rows.flat().map((leaf) => leaf.shape[0]));
  const single = Math.min(...sizes.flat().map(([high, wide]) => Math.min(width / wide, 210 / high)));
  const abreast = Math.min(...sizes.map((row) => (width - 24 * row.length) / row.reduce((sum, [, wide]) => sum + wide, 0)));
  return abreast > single / 3 ? Math.min(single, abreast) : single;
};
// Large arrays first, then vectors, which are only lines.
const insideOrdered = (node) => insideLeaves(node).toSorted((a, b) => (a.shape.length > 1 ? 0 : 1) - (b.shape.length > 1 ? 0 : 1));

const INSIDE_SIGNS = { embedding: "+", attention: "+", mlp: "+", block: "+", norm: "○", head: "→" };

const insideRow = (view, node, drawing, said) =>
  h("li", { class: "inside-stage inside-line-" + (node.shape && node.shape.length === 1 ? "norm" : node.family) },
    h("span", { class: "inside-sign", "aria-hidden": "true" }, INSIDE_SIGNS[node.kind] || INSIDE_SIGNS[node.family] || "·"),
    h("div", { class: "inside-name" },
      h("button", { type: "button", class: "inside-link", on: { click: () => view.zoom(node.path) } }, insideTitle(node)),
      h("small", {}, node.tied ? "shared" : whole(node.parameters) + " · " + percent(insideShare(node)))),
    h("div", { class: "inside-drawn" }, drawing),
    said ? h("div", { class: "inside-said" }, said) : null);

// Contribution of a step to the residual stream of the selected token.
const insideAdds = (view, node) => {
  const layer = insideLayerOf(node);
  const added = view.data && layer !== null && layer < view.data.layers ? view.data.added[node.kind] : null;
  if (!added) return null;
  const value = added.data[layer * view.data.count + view.token];
  const most = Math.max(...Object.values(view.data.added).map((one) => one.data[layer * view.data.count + view.token]), 1e-9);
  return [h("span", { class: "inside-meter", style: { "--share": ((100 * value) / most).toFixed(1) + "%" } }), h("small", {}, "adds " + decimals(value))];
};

// Logit lens of the layer at the selected token.
const insideSays = (view, layer) => {
  const data = view.data;
  if (!data || !data.lens[layer]) return null;
  const best = data.lens[layer][view.token][0];
  const before = layer ? data.lens[layer - 1][view.token][0] : null;
  const changed = before && before[0] !== best[0];
  return [
    h("span", { class: "inside-meter", style: { "--share": percent(best[2]).replace("< ", "").replace(" ", "") } }),
    h("bdi", { class: "inside-word" }, best[1]), " ", h("small", {}, percent(best[2]) + (changed ? " ◂ new" : "")),
  ];
};

const insideNetwork = (view, node, width) => {
  const stages = insideStages(node);
  const blocks = stages.filter((one) => one.kind === "block");
  const tiles = blocks.length > INSIDE_ROWS;
  const largest = Math.max(1, ...blocks.map((one) => one.parameters));
  const unit = Math.min((INSIDE_LINES * width) / Math.max(1, node.parameters), (width - 6) / largest); // room for the lines of the norms
  const draw = (one) => insideRibbon(insidePieces(one), unit, width);
  const rows = [];
  const first = stages.findIndex((one) => one.kind === "block");
  stages.forEach((one, at) => {
    if (one.kind === "block" && tiles) {
      if (at === first) rows.push(insideTiles(view, blocks, draw));
      return;
    }
    let said = null;
    if (one.kind === "block") said = insideSays(view, one.index + 1);
    else if (at === first - 1) said = insideSays(view, 0);
    else if (one.family === "head" && view.data) said = insideSays(view, view.data.lens.length - 1);
    rows.push(insideRow(view, one, one.parameters ? insideButton(view, one, {}, draw(one)) : null, said));
  });
  const square = Math.round(INSIDE_LINE * INSIDE_LINE / unit / INSIDE_LINE);
  return [h("ol", { class: "inside-flow" + (view.data ? " inside-speaks" : "") }, rows), insideLegend(square)];
};

const insideTiles = (view, blocks, draw) =>
  h("li", { class: "inside-stage" }, h("span", { class: "inside-sign", "aria-hidden": "true" }, "+"),
    h("div", { class: "inside-name" }, h("b", {}, plural(blocks.length, "block")), h("small", {}, `${whole(blocks[0].parameters)} parameters each, in sequence`)),
    h("div", { class: "inside-drawn inside-tiles" }, blocks.map((one) => insideButton(view, one, { class: "inside-tile" }, draw(one), h("small", {}, one.index + 1)))));

const insideLegend = (square) =>
  h("p", { class: "inside-legend" },
    h("span", {}, h("i", { class: "inside-key inside-embedding" }), "embedding tables"), h("span", {}, h("i", { class: "inside-key inside-attention" }), "attention"),
    h("span", {}, h("i", { class: "inside-key inside-mlp" }), "MLP"), h("span", {}, h("i", { class: "inside-key inside-head" }), "output"), h("span", {}, h("i", { class: "inside-key inside-norm" }), "norms and other small vectors"),
    square ? h("span", {}, `Areas are to scale: a square as high as a ribbon is ${whole(square)} parameters.`) : h("span", {}, "Matrices are drawn to scale: height is inputs, width is outputs."));

const insideParts = (view, node, width) => {
  const inRows = node.children.some((child) => child.children.length > 1 || INSIDE_FAMILIES.includes(child.kind));
  const scale = insideScaleOf(inRows ? node.children.map(insideLeaves) : [insideLeaves(node)], width);
  const drawn = (of) => insideOrdered(of).map((leaf) => insideMatrix(view, leaf, scale, width));
  const flow = () => h("ol", { class: "inside-flow" + (node.kind === "block" && view.data ? " inside-speaks" : "") }, node.children.map((child) => insideRow(view, child, drawn(child), insideAdds(view, child))));
  const heads = (node.slices || []).map((slice) => h("button", { type: "button", class: "inside-head-button", "aria-label": "Head " + (slice.index + 1), on: { click: () => view.zoom(slice.path) } }, slice.index + 1));
  return [
    inRows ? flow() : h("div", { class: "inside-drawn inside-sheets" }, drawn(node)),
    heads.length ? h("div", { class: "inside-heads", role: "group", "aria-label": "Heads" }, h("span", {}, "Zoom in on a head: "), heads) : null,
    insideLegend(0),
  ];
};

const insideLeafView = (node, width) => {
  const [rows, columns] = node.shape.length > 1 ? node.shape.slice(-2) : [1, node.shape[0]];
  const [most, highest] = [width - 40, 340];
  const fits = Math.min(most / columns, highest / rows);
  const long = Math.max(rows, columns) / Math.min(rows, columns) > 8 && node.shape.length > 1;
  const scale = long ? Math.sqrt((most * highest * 0.6) / (rows * columns)) : fits;
  const sheet = insideSheet(node.of ? { ...node.of, of: node.of, at: node.at, count: node.count } : { ...node, headCount: insideHeadCount(node) }, scale, most, highest);
  const letter = (axis) => (node.axes ? insideLetter(node.axes[axis]) + " " : "");
  const last = node.shape.length - 1;
  return h("figure", { class: "inside-leaf" },
    node.shape.length > 1 ? h("span", { class: "inside-rows" }, letter(0) + whole(rows) + (node.axes ? " · " + node.axes[0] : "")) : null,
    sheet, h("span", { class: "inside-columns" }, letter(last) + whole(columns) + (node.axes ? " · " + node.axes[last] : "")),
    sheet.strips > 1 ? h("figcaption", {}, `Too long to draw in proportion: cut into ${sheet.strips} strips.`) : null);
};

// Complete view of one part.
const insideDraw = (view, node, width) => {
  if (!node.children.length) return node.shape ? [insideLeafView(node, width)] : [];
  return insideStages(node).some((one) => one.kind === "block") ? insideNetwork(view, node, width) : insideParts(view, node, width);
};

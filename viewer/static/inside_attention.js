// Attention on the reader's text: a small map for each head, one of them large, and over the text.

const INSIDE_MAPS = 200; // small maps at once; of a larger model one layer's alone

// 65 colors from the paper to the color of attention, as red, green, blue.
const insidePalette = () => {
  const probe = h("span", { hidden: true });
  document.body.append(probe);
  const dot = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colours = Array.from({ length: 65 }, (_, at) => {
    probe.style.color = cool(at / 64);
    dot.fillStyle = getComputedStyle(probe).color;
    dot.fillRect(0, 0, 1, 1);
    return [...dot.getImageData(0, 0, 1, 1).data];
  });
  probe.remove();
  return colours;
};

// Color follows the square root of the weight, so that small weights are visible; see the legend.
const insideDepth = (weight) => Math.sqrt(Math.min(1, Math.max(0, weight)));
const insideVisible = (query, key, window) => key <= query && (window === null || key > query - window);

// One pixel per weight; masked positions stay transparent and show the hatching.
const insidePaint = (canvas, data, layer, head, window, palette) => {
  const count = data.count;
  canvas.width = canvas.height = count;
  const picture = new ImageData(count, count);
  const start = (layer * data.heads + head) * count * count;
  for (let query = 0; query < count; query++) {
    for (let key = 0; key < count; key++) {
      if (!insideVisible(query, key, window)) continue;
      const at = query * count + key;
      picture.data.set(palette[Math.round(64 * insideDepth(data.attention[start + at]))], 4 * at);
    }
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
};

const insideWeight = (data, layer, head, query, key) => data.attention[((layer * data.heads + head) * data.count + query) * data.count + key];

// The text as tokens, each with a small line below it.
const insideTokens = (label, texts, choose, peek = () => {}) => tokenStrip(label, texts.map((text) => ({ text })), {
  choose, peek, decorate: (span) => { span.classList.add("inside-token"); span.append(h("small", {})); },
});

const insideAttention = (view) => {
  const { data } = view;
  const palette = insidePalette();
  const grid = insideGrid(view, palette);
  const large = h("canvas", { class: "inside-large", tabindex: "0", role: "img" });
  const frame = h("div", { class: "inside-map" });
  const cross = h("i", { class: "inside-row", "aria-hidden": "true" });
  const cell = h("i", { class: "inside-cell", "aria-hidden": "true" });
  const read = h("output", { class: "inside-read", "aria-live": "polite" });
  const title = h("h3", {});
  const windowNote = h("p", { class: "note" });
  let [peeked, key] = [-1, -1];
  const query = () => (peeked >= 0 ? peeked : view.token);
  const strip = insideTokens("Your text, colored by the attention of the selected token.", data.tokens, (at) => { key = -1; view.set({ token: at }); }, (at) => { peeked = at; key = -1; show(); });

  const describe = () => {
    const from = query();
    const name = (at) => `“${data.tokens[at]}”`;
    if (key >= 0 && key > from) return `${name(from)} cannot attend to ${name(key)}: it is later.`;
    if (key >= 0 && !insideVisible(from, key, data.windows[view.layer])) return `${name(from)} cannot attend to ${name(key)}: it is outside this layer's window.`;
    if (key >= 0) return `${name(from)} attends to ${name(key)}: ${percent(insideWeight(data, view.layer, view.head, from, key))}.`;
    const order = Array.from({ length: from + 1 }, (_, at) => at).sort((a, b) => insideWeight(data, view.layer, view.head, from, b) - insideWeight(data, view.layer, view.head, from, a));
    return `${name(from)} attends most to ` + order.slice(0, 3).map((at) => `${name(at)} ${percent(insideWeight(data, view.layer, view.head, from, at))}`).join(", ") + ".";
  };

  const show = () => {
    const from = query();
    const window = data.windows[view.layer];
    strip.mark(from, peeked < 0);
    strip.spans.forEach((span, at) => {
      const sees = insideVisible(from, at, window);
      const weight = sees ? insideWeight(data, view.layer, view.head, from, at) : 0;
      const depth = insideDepth(weight);
      span.classList.toggle("inside-hidden", !sees);
      span.style.backgroundColor = sees ? cool(UNDER_TEXT * depth) : "";
      span.lastChild.textContent = !sees ? "–" : weight < 0.0005 ? "0" : (100 * weight).toFixed(weight < 0.0995 ? 1 : 0);
    });
    for (const [part, share] of [["top", from], ["height", 1]]) cross.style.setProperty(part, (100 * share) / data.count + "%");
    cell.hidden = key < 0;
    for (const [part, share] of [["top", from], ["left", key], ["height", 1], ["width", 1]]) cell.style.setProperty(part, (100 * share) / data.count + "%");
    read.textContent = describe();
  };

  const place = (event) => {
    const box = large.getBoundingClientRect();
    const at = (share) => Math.min(data.count - 1, Math.max(0, Math.floor(share * data.count)));
    return [at((event.clientY - box.top) / box.height), at((event.clientX - box.left) / box.width)];
  };
  large.addEventListener("pointermove", (event) => { [peeked, key] = place(event); show(); });
  large.addEventListener("pointerleave", () => { [peeked, key] = [-1, -1]; show(); });
  large.addEventListener("click", (event) => { const [row] = place(event); view.set({ token: row }); });
  large.addEventListener("keydown", (event) => {
    const move = arrowJump(event, GRID_JUMPS);
    if (!move) return;
    key = bounded((key < 0 ? view.token : key) + move[1], data.count - 1);
    if (move[0]) view.set({ token: bounded(view.token + move[0], data.count - 1) });
    else show();
  });

  const draw = () => {
    const window = data.windows[view.layer];
    insidePaint(large, data, view.layer, view.head, window, palette);
    title.textContent = `Layer ${view.layer + 1}, head ${view.head + 1}`;
    large.setAttribute("aria-label", `Attention map of layer ${view.layer + 1}, head ${view.head + 1}: rows are queries, columns are keys. Arrow keys move the selection; the weights are below.`);
    windowNote.textContent = window === null ? "Hatched: masked, later tokens." : `Hatched: masked, later tokens and those outside this layer's window of ${plural(window, "token")}.`;
    grid.mark();
    show();
  };
  const names = data.count <= 36 ? h("div", { class: "inside-names", "aria-hidden": "true" }, data.tokens.map((text) => h("bdi", {}, text))) : null;
  const below = data.count <= 36 ? h("div", { class: "inside-names inside-names-below", "aria-hidden": "true" }, data.tokens.map((text) => h("bdi", {}, text))) : null;
  frame.append(h("div", { class: "inside-plot" }, large, cross, cell));
  const node = h("div", { class: "inside-heads-and-map" }, grid,
    h("div", { class: "inside-two" },
      h("figure", { class: "inside-figure" + (names ? "" : " inside-bare") }, title, h("div", { class: "inside-framed" }, names, frame, below), windowNote),
      h("div", {}, h("h3", {}, "On the text"), strip, read, note("Below each token: its share of the selected token's attention, in percent; the sum is 100. Colors follow the square root of the weight, so that small ones are visible."))));
  draw();
  node.update = (changed) => {
    if (changed.includes("layer") || changed.includes("head")) draw();
    else show();
  };
  return node;
};

// Rows are layers, columns are heads; one is selected, arrow keys move the selection.
const insideGrid = (view, palette) => {
  const { data } = view;
  const all = data.layers * data.heads <= INSIDE_MAPS;
  const box = h("div", { class: "inside-grid", role: "group", "aria-label": "Attention maps, a row per layer and a column per head. Arrow keys select one.", style: { "--heads": data.heads, "--cell": (all ? Math.max(2.1, Math.min(5.5, 34 / data.layers)) : 5.5) + "rem" } });
  let maps = new Map();
  const fill = (layers) => {
    maps = new Map();
    box.replaceChildren(h("span", { class: "inside-axis" }, "head"), ...Array.from({ length: data.heads }, (_, head) => h("span", { class: "inside-axis" }, head + 1)), ...layers.flatMap((layer) => [
      h("span", { class: "inside-axis" }, (layer === layers[0] ? "layer " : "") + (layer + 1)),
      ...Array.from({ length: data.heads }, (_, head) => {
        const canvas = h("canvas", { "aria-hidden": "true" });
        insidePaint(canvas, data, layer, head, data.windows[layer], palette);
        const button = h("button", { type: "button", class: "inside-small", tabindex: "-1", "aria-label": `Layer ${layer + 1}, head ${head + 1}`, on: { click: () => view.set({ layer, head }) } }, canvas);
        maps.set(layer + "," + head, button);
        return button;
      }),
    ]));
  };
  box.addEventListener("keydown", (event) => {
    const move = arrowJump(event, GRID_JUMPS);
    if (!move) return;
    view.set({ layer: bounded(view.layer + move[0], data.layers - 1), head: bounded(view.head + move[1], data.heads - 1) });
    maps.get(view.layer + "," + view.head)?.focus();
  });
  const chosen = all ? null : slider("layer", { min: 1, max: data.layers, value: view.layer + 1, on: (value) => view.set({ layer: value - 1 }) });
  if (all) fill(Array.from({ length: data.layers }, (_, layer) => layer));
  let shown = -1;
  const node = h("div", { class: "inside-all" }, chosen, scroller("Maps of the heads", box));
  node.mark = () => {
    if (!all && shown !== view.layer) {
      fill([view.layer]);
      shown = view.layer;
      chosen.set(view.layer + 1);
    }
    for (const [name, button] of maps) {
      const here = name === view.layer + "," + view.head;
      button.setAttribute("aria-pressed", here);
      button.tabIndex = here ? 0 : -1;
    }
  };
  return node;
};

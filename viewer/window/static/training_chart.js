// Curves by step, drawn in the page: pointer and arrow keys read values; a table has them for screen readers.

const TRAINING_ROOM = { left: 50, right: 14, top: 12, bottom: 24 };
const TRAINING_ROWS = 40; // of a table

const trainingNumber = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(2).replace("e-", " × 10⁻").replace(/\d+$/, (power) => power.replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]));
  return Math.abs(value) >= 10000 ? whole(value) : String(Number(value.toPrecision(4)));
};
const trainingShort = (value) => {
  const size = Math.abs(value);
  if (size >= 1e9) return Number((value / 1e9).toPrecision(3)) + " G";
  if (size >= 1e6) return Number((value / 1e6).toPrecision(3)) + " M";
  if (size >= 1e4) return Number((value / 1e3).toPrecision(3)) + " k";
  return size !== 0 && size < 0.001 ? value.toExponential(0) : String(Number(value.toPrecision(4)));
};

// A scale from values to 0 … 1. Steps begin at 0, so the logarithm is of step + 1.
const trainingScale = (low, high, logarithmic, shift) => {
  const at = logarithmic ? (value) => Math.log(Math.max(value + shift, 1e-12)) : (value) => value;
  const [first, last] = [at(low), at(high)];
  return (value) => (last > first ? (at(value) - first) / (last - first) : 0.5);
};

const trainingTicks = (low, high, logarithmic, shift, count) => {
  const found = [];
  if (logarithmic) {
    if (shift && low <= 0) found.push(0);
    const decades = Math.log10((high + shift) / Math.max(low + shift, 1e-12));
    const parts = decades > 3 ? [1] : decades > 1.2 ? [1, 3] : [1, 1.5, 2, 3, 4, 5, 6, 8];
    for (let power = Math.floor(Math.log10(Math.max(low, shift || 1e-12))); power <= Math.log10(high); power++) {
      for (const part of parts) {
        const value = part * 10 ** power;
        if (value >= low && value <= high && (!shift || Number.isInteger(value))) found.push(Number(value.toPrecision(6)));
      }
    }
    const every = Math.ceil(found.length / count);
    if (found.length > 1) return found.filter((_, i) => i % every === 0);
  }
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const size = [1, 2, 5, 10].map((part) => part * power).find((one) => one >= raw);
  const ticks = [];
  for (let value = Math.ceil(low / size) * size; value <= high + size * 1e-9; value += size) ticks.push(Number(value.toPrecision(10)));
  return ticks;
};

// Exponential moving average like TensorBoard's, with bias correction at the start.
const trainingSmoothed = (points, weight) => {
  let sum = 0;
  let share = 0;
  return points.map(([x, y]) => {
    sum = weight * sum + (1 - weight) * y;
    share = weight * share + (1 - weight);
    return [x, sum / share];
  });
};

const trainingNearest = (points, x) => {
  let low = 0;
  let high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle;
    else high = middle;
  }
  return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? low : high;
};

// Whether the curve has a value near this position.
const trainingReaches = (points, x) => {
  const gap = (2 * (points.at(-1)[0] - points[0][0])) / points.length;
  return x >= points[0][0] - gap && x <= points.at(-1)[0] + gap;
};

// draw({series: [{name, colour, dash, dots, points: [[x, y], …], raw: the same unsmoothed}], x: {name, logarithmic},
// y: {logarithmic}, at: x of the marked step, chosen: whether a reader chose it}); `choose(x)` is called on a click or
// Enter.
const trainingChart = (title, about, choose) => {
  const drawing = svg("svg", { class: "training-drawing", "aria-hidden": "true" });
  const output = h("output", { class: "training-read" });
  const body = h("tbody");
  const header = h("tr");
  const table = h("details", { class: "as-table", on: { toggle: () => { if (table.open) fillTable(); } } },
    h("summary", {}, "as a table"), h("div", { class: "training-scroll", tabindex: "0", role: "group", "aria-label": title + " as a table" }, h("table", {}, h("thead", {}, header), body)));
  const plot = h("div", { class: "training-plot", tabindex: "0", role: "group", "aria-label": `${title}. Arrow keys read values.` }, drawing);
  const key = h("span", { class: "training-key" });
  const node = h("figure", { class: "training-chart" }, h("figcaption", {}, h("b", {}, title), about ? " " + about : "", key), plot, output, table);
  let shown = null;
  let cursor = null; // the x to read values at
  let place = null;

  const fillTable = () => {
    if (!shown || !shown.series.length) return;
    header.replaceChildren(h("th", { scope: "col" }, shown.x.name), ...shown.series.map((one) => h("th", { scope: "col", class: "n" }, one.name)));
    const longest = shown.series.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points;
    const every = Math.max(1, Math.ceil(longest.length / TRAINING_ROWS));
    body.replaceChildren(...longest.filter((_, i) => i % every === 0 || i === longest.length - 1).map(([x]) =>
      h("tr", {}, h("th", { scope: "row" }, whole(x)), ...shown.series.map((one) => h("td", { class: "n" }, trainingReaches(one.points, x) ? trainingNumber(one.points[trainingNearest(one.points, x)][1]) : "–")))));
  };

  const read = () => {
    drawing.querySelectorAll(".training-cursor").forEach((old) => old.remove());
    if (!shown || !shown.series.length || !place) { output.replaceChildren(); return; }
    const at = cursor === null ? resting() : cursor; // show values without a pointer too, so that the layout does not jump
    const parts = [h("span", {}, `${shown.x.name} ${whole(at)}`)];
    if (cursor !== null) drawing.append(svg("line", { class: "training-cursor", x1: place.x(at), x2: place.x(at), y1: TRAINING_ROOM.top, y2: place.bottom }));
    for (const one of shown.series) {
      const point = one.points[trainingNearest(one.points, at)];
      if (!trainingReaches(one.points, at)) continue; // the other run is longer
      const raw = one.raw ? one.raw[trainingNearest(one.raw, at)] : null;
      parts.push(" · ", one.name + " ", h("b", { style: { color: one.colour } }, trainingNumber(point[1])), raw ? ` (as logged ${trainingNumber(raw[1])})` : "", point[0] === at ? "" : ` at ${whole(point[0])}`);
      if (cursor !== null) drawing.append(svg("circle", { class: "training-cursor", cx: place.x(point[0]), cy: place.y(point[1]), r: 3.5, style: { fill: one.colour } }));
    }
    output.replaceChildren(...parts);
  };

  const paintAll = () => {
    const width = Math.max(220, plot.clientWidth || 600);
    const height = node.classList.contains("training-large") ? Math.min(340, Math.max(220, width * 0.42)) : 150;
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("width", width);
    drawing.setAttribute("height", height);
    drawing.replaceChildren();
    const all = shown.series.flatMap((one) => one.points);
    if (!all.length) return;
    const ends = (values) => values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    const [left, right] = ends(all.map((point) => point[0]));
    let [low, high] = ends(all.map((point) => point[1]));
    if (shown.y.zero && !shown.y.logarithmic) low = Math.min(0, low);
    const logarithmic = shown.y.logarithmic && low > 0;
    const edge = high > low ? (high - low) * 0.04 : Math.abs(high) * 0.1 || 1;
    if (!logarithmic) [low, high] = [low === 0 ? 0 : low - edge, high + edge];
    const scaleX = trainingScale(left, right, shown.x.logarithmic, 1);
    const scaleY = trainingScale(low, high, logarithmic, 0);
    const bottom = height - TRAINING_ROOM.bottom;
    const x = (value) => TRAINING_ROOM.left + scaleX(value) * (width - TRAINING_ROOM.left - TRAINING_ROOM.right);
    const y = (value) => bottom - scaleY(value) * (bottom - TRAINING_ROOM.top);
    place = { x, y, bottom, left, right };
    for (const tick of trainingTicks(low, high, logarithmic, 0, height > 200 ? 6 : 3)) {
      drawing.append(svg("line", { class: "training-grid", x1: TRAINING_ROOM.left, x2: width - TRAINING_ROOM.right, y1: y(tick), y2: y(tick) }),
        svg("text", { class: "training-tick", x: TRAINING_ROOM.left - 7, y: y(tick) + 4, "text-anchor": "end" }, trainingShort(tick)));
    }
    for (const tick of trainingTicks(left, right, shown.x.logarithmic, 1, Math.max(3, Math.floor(width / 90)))) {
      drawing.append(svg("text", { class: "training-tick", x: x(tick), y: height - 7, "text-anchor": "middle" }, trainingShort(tick)));
    }
    const line = (points) => points.map((point, i) => (i ? "L" : "M") + x(point[0]).toFixed(1) + " " + y(point[1]).toFixed(1)).join("");
    const clipped = (points) => points.map(([a, b]) => [a, Math.min(high, Math.max(low, b))]);
    if (shown.at !== null && shown.at !== undefined && shown.at >= left && shown.at <= right) {
      drawing.append(svg("line", { class: "training-at", x1: x(shown.at), x2: x(shown.at), y1: TRAINING_ROOM.top, y2: bottom }));
    }
    for (const one of shown.series) {
      if (one.raw) drawing.append(svg("path", { class: "training-raw", d: line(clipped(one.raw)), style: { stroke: one.colour } }));
      drawing.append(svg("path", { class: "training-line", d: line(one.points), "stroke-dasharray": one.dash || false, style: { stroke: one.colour } }));
      if (one.dots || one.points.length === 1) for (const point of one.points) drawing.append(svg("circle", { cx: x(point[0]), cy: y(point[1]), r: 3, style: { fill: one.colour } }));
    }
    read();
  };

  // The selected step, else the last.
  const resting = () => (shown.chosen && shown.at >= place.left && shown.at <= place.right ? shown.at : longest().at(-1)[0]);
  const longest = () => (shown && shown.series.length ? shown.series.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points : []);
  const valueAt = (event) => {
    const box = drawing.getBoundingClientRect();
    const points = longest();
    if (!points.length || !place) return null;
    let best = null;
    const wanted = event.clientX - box.left;
    for (const one of shown.series) for (const [value] of one.points) if (best === null || Math.abs(place.x(value) - wanted) < Math.abs(place.x(best) - wanted)) best = value;
    return best;
  };
  plot.addEventListener("pointermove", (event) => { cursor = valueAt(event); read(); });
  plot.addEventListener("pointerleave", () => { if (document.activeElement !== plot) { cursor = null; read(); } });
  plot.addEventListener("blur", () => { cursor = null; read(); });
  plot.addEventListener("click", (event) => { const x = valueAt(event); if (x !== null && choose) choose(x); });
  const jumps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
  plot.addEventListener("keydown", (event) => {
    const points = longest();
    if (event.key === "Enter" && cursor !== null && choose) { event.preventDefault(); choose(cursor); return; }
    const jump = jumps[event.key];
    if (jump === undefined || !points.length || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const now = trainingNearest(points, cursor === null ? resting() : cursor);
    cursor = points[cursor === null ? now : Math.min(points.length - 1, Math.max(0, now + jump))][0];
    read();
  });
  let width = 0;
  const watcher = new ResizeObserver(() => {
    if (shown && plot.clientWidth !== width) { width = plot.clientWidth; paintAll(); }
  });
  watcher.observe(plot);

  node.draw = (next) => {
    shown = { ...next, series: next.series.filter((one) => one.points.length) };
    node.hidden = !shown.series.length;
    key.replaceChildren(...(shown.series.length > 1 ? shown.series.map((one) => h("span", {}, svg("svg", { width: 22, height: 8, "aria-hidden": "true" }, svg("line", { x1: 0, x2: 22, y1: 4, y2: 4, "stroke-width": 2, "stroke-dasharray": one.dash || false, style: { stroke: one.colour } })), " ", one.name)) : []));
    paintAll();
    if (table.open) fillTable();
  };
  node.end = () => watcher.disconnect();
  return node;
};

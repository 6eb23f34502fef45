// Charts in SVG. Pointer and arrow keys read values; a table has them for screen readers.

const CHART_ROOM = { left: 50, right: 14, top: 12, bottom: 24 };
const CHART_ROWS = 40; // of a table

const exactNumber = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(2).replace("e-", " × 10⁻").replace(/\d+$/, (power) => power.replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]));
  return Math.abs(value) >= 10000 ? whole(value) : String(Number(value.toPrecision(4)));
};
const shortNumber = (value) => {
  const size = Math.abs(value);
  for (const [unit, least] of [["e", 1e15], ["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (size >= (unit === "k" ? 1e4 : least)) return unit === "e" ? value.toExponential(0).replace("+", "") : Number((value / least).toPrecision(3)) + " " + unit;
  }
  return size !== 0 && size < 0.001 ? value.toExponential(0) : String(Number(value.toPrecision(4)));
};

// A scale from values to 0 … 1. Steps begin at 0, so the logarithm is of step + 1: `shift` is 1.
const chartScale = (low, high, logarithmic, shift) => {
  const at = logarithmic ? (value) => Math.log(Math.max(value + shift, 1e-12)) : (value) => value;
  const [first, last] = [at(low), at(high)];
  return (value) => (last > first ? (at(value) - first) / (last - first) : 0.5);
};

const chartTicks = (low, high, logarithmic, shift, count) => {
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

const nearestIndex = (points, x) => {
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
const curveReaches = (points, x) => {
  const gap = (2 * (points.at(-1)[0] - points[0][0])) / points.length;
  return x >= points[0][0] - gap && x <= points.at(-1)[0] + gap;
};

// A figure with draw({series, x, y, at, chosen}). series: [{name, colour, dash, points: [[x, y], …], dots, scatter: no line,
// raw: the same unsmoothed, band: [[x, low, high], …], label: text at the end}]; x: {name, logarithmic, shift, ticks};
// y: {zero, logarithmic, most, show}; `at`: x of the marked step, `chosen`: whether a reader chose it. `choose(x)` is
// called on a click or Enter.
const lineChart = (title, about, { choose, large = false, keyed = true } = {}) => {
  const drawing = svg("svg", { class: "chart-drawing", "aria-hidden": "true" });
  const output = h("output", { class: "chart-values" });
  const body = h("tbody");
  const header = h("tr");
  const table = h("details", { class: "as-table", on: { toggle: () => { if (table.open) fillTable(); } } },
    h("summary", {}, "Show as a table"), h("div", { class: "chart-scroll", tabindex: "0", role: "group", "aria-label": title + " as a table" }, h("table", {}, h("thead", {}, header), body)));
  const plot = h("div", { class: "chart-plot", tabindex: "0", role: "group", "aria-label": `${title}. Arrow keys read values.` }, drawing);
  const key = h("span", { class: "chart-key" });
  const node = h("figure", { class: large ? "chart chart-large" : "chart" }, h("figcaption", {}, h("b", {}, title), about ? " " + about : "", key), plot, output, table);
  let shown = null;
  let cursor = null; // the x to read values at
  let place = null;
  const showY = (value) => (shown.y.show || exactNumber)(value);

  const fillTable = () => {
    if (!shown || !shown.series.length) return;
    put(header, h("th", { scope: "col" }, shown.x.name), shown.series.map((one) => h("th", { scope: "col", class: "n" }, one.name)));
    const points = longest();
    const every = Math.max(1, Math.ceil(points.length / CHART_ROWS));
    put(body, points.filter((_, i) => i % every === 0 || i === points.length - 1).map(([x]) =>
      h("tr", {}, h("th", { scope: "row" }, exactNumber(x)), shown.series.map((one) => h("td", { class: "n" }, curveReaches(one.points, x) ? showY(one.points[nearestIndex(one.points, x)][1]) : "–")))));
  };

  const read = () => {
    for (const old of drawing.querySelectorAll(".chart-cursor")) old.remove();
    if (!shown || !shown.series.length || !place) { output.replaceChildren(); return; }
    const at = cursor === null ? resting() : cursor; // show values without a pointer too, so that the layout does not jump
    const parts = [h("span", {}, `${shown.x.name} ${exactNumber(at)}`)];
    if (cursor !== null) drawing.append(svg("line", { class: "chart-cursor", x1: place.x(at), x2: place.x(at), y1: CHART_ROOM.top, y2: place.bottom }));
    for (const one of shown.series) {
      const point = one.points[nearestIndex(one.points, at)];
      if (!curveReaches(one.points, at)) continue; // the other run is longer
      const raw = one.raw ? one.raw[nearestIndex(one.raw, at)] : null;
      parts.push(" · ", one.name + " ", h("b", { style: { color: one.colour } }, showY(point[1])), raw ? ` (as logged ${showY(raw[1])})` : "", point[0] === at ? "" : ` at ${exactNumber(point[0])}`);
      if (cursor !== null) drawing.append(svg("circle", { class: "chart-cursor", cx: place.x(point[0]), cy: place.y(point[1]), r: 3.5, style: { fill: one.colour } }));
    }
    output.replaceChildren(...parts);
  };

  const paintAll = () => {
    const width = Math.max(220, plot.clientWidth || 600);
    const height = large ? Math.min(340, Math.max(220, width * 0.42)) : 150;
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("width", width);
    drawing.setAttribute("height", height);
    drawing.replaceChildren();
    const all = shown.series.flatMap((one) => [...one.points, ...(one.band || []).flatMap(([x, low, high]) => [[x, low], [x, high]])]);
    if (!all.length) return;
    const ends = (values) => values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    const [left, right] = ends(all.map((point) => point[0]));
    let [low, high] = ends(all.map((point) => point[1]));
    if (shown.y.zero && !shown.y.logarithmic) low = Math.min(0, low);
    if (shown.y.most) high = shown.y.most;
    const logarithmic = shown.y.logarithmic && low > 0;
    const edge = high > low ? (high - low) * 0.04 : Math.abs(high) * 0.1 || 1;
    if (!logarithmic) [low, high] = [low === 0 ? 0 : low - edge, shown.y.most ? high : high + edge];
    const shift = shown.x.shift ?? 1;
    const room = { ...CHART_ROOM, right: shown.series.some((one) => one.label) ? 100 : CHART_ROOM.right };
    const scaleX = chartScale(left, right, shown.x.logarithmic, shift);
    const scaleY = chartScale(low, high, logarithmic, 0);
    const bottom = height - room.bottom;
    const x = (value) => room.left + scaleX(value) * (width - room.left - room.right);
    const y = (value) => bottom - Math.min(1, scaleY(value)) * (bottom - room.top);
    place = { x, y, bottom, left, right };
    for (const tick of chartTicks(low, high, logarithmic, 0, height > 200 ? 6 : 3)) {
      drawing.append(svg("line", { class: "chart-grid", x1: room.left, x2: width - room.right, y1: y(tick), y2: y(tick) }),
        svg("text", { class: "chart-tick", x: room.left - 7, y: y(tick) + 4, "text-anchor": "end" }, shown.y.show ? shown.y.show(tick) : shortNumber(tick)));
    }
    for (const tick of shown.x.ticks || chartTicks(left, right, shown.x.logarithmic, shift, Math.max(3, Math.floor(width / 90)))) {
      drawing.append(svg("text", { class: "chart-tick", x: x(tick), y: height - 7, "text-anchor": "middle" }, shortNumber(tick)));
    }
    const line = (points) => points.map((point, i) => (i ? "L" : "M") + x(point[0]).toFixed(1) + " " + y(point[1]).toFixed(1)).join("");
    const clipped = (points) => points.map(([a, b]) => [a, Math.min(high, Math.max(low, b))]);
    if (shown.at !== null && shown.at !== undefined && shown.at >= left && shown.at <= right) {
      drawing.append(svg("line", { class: "chart-at", x1: x(shown.at), x2: x(shown.at), y1: room.top, y2: bottom }));
    }
    const labelled = [];
    for (const one of shown.series) {
      if (one.band) drawing.append(svg("path", { class: "chart-band", d: line([...one.band.map(([a, b]) => [a, b]), ...[...one.band].reverse().map(([a, , b]) => [a, b])]) + "Z", style: { fill: one.colour, stroke: one.colour } }));
      if (one.raw) drawing.append(svg("path", { class: "chart-raw", d: line(clipped(one.raw)), style: { stroke: one.colour } }));
      if (!one.scatter) drawing.append(svg("path", { class: "chart-line", d: line(one.points), "stroke-dasharray": one.dash || false, style: { stroke: one.colour } }));
      if (one.dots || one.scatter || one.points.length === 1) for (const point of one.points) drawing.append(svg("circle", { cx: x(point[0]), cy: y(point[1]), r: one.scatter ? 4 : 3, style: { fill: one.colour } }));
      if (one.label) labelled.push([y(one.points.at(-1)[1]), one]);
    }
    let lowest = 0; // of the labels so far, which must not overlap
    for (const [at, one] of labelled.sort((a, b) => a[0] - b[0])) {
      lowest = Math.max(at, lowest + 14);
      drawing.append(svg("text", { class: "chart-label", x: x(one.points.at(-1)[0]) + 8, y: lowest + 4, style: { fill: one.colour } }, one.label));
    }
    read();
  };

  // The selected step, else the last.
  const resting = () => (shown.chosen && shown.at >= place.left && shown.at <= place.right ? shown.at : longest().at(-1)[0]);
  const longest = () => (shown?.series.length ? shown.series.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points : []);
  const valueAt = (event) => {
    if (!longest().length || !place) return null;
    let best = null;
    const wanted = event.clientX - drawing.getBoundingClientRect().left;
    for (const one of shown.series) for (const [value] of one.points) if (best === null || Math.abs(place.x(value) - wanted) < Math.abs(place.x(best) - wanted)) best = value;
    return best;
  };
  plot.addEventListener("pointermove", (event) => { cursor = valueAt(event); read(); });
  plot.addEventListener("pointerleave", () => { if (document.activeElement !== plot) { cursor = null; read(); } });
  plot.addEventListener("blur", () => { cursor = null; read(); });
  plot.addEventListener("click", (event) => { const x = valueAt(event); if (x !== null && choose) choose(x); });
  plot.addEventListener("keydown", (event) => {
    const points = longest();
    if (event.key === "Enter" && cursor !== null && choose) { event.preventDefault(); choose(cursor); return; }
    const jump = points.length ? arrowJump(event, { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }) : null;
    if (jump === null) return;
    const now = nearestIndex(points, cursor === null ? resting() : cursor);
    cursor = points[cursor === null ? now : bounded(now + jump, points.length - 1)][0];
    read();
  });
  let width = 0;
  const watcher = new ResizeObserver(() => {
    if (shown && plot.clientWidth !== width) { width = plot.clientWidth; paintAll(); }
  });
  watcher.observe(plot);

  node.draw = (next) => {
    shown = { ...next, y: next.y || {}, series: next.series.filter((one) => one.points.length) };
    node.hidden = !shown.series.length;
    put(key, keyed && shown.series.length > 1 ? shown.series.map((one) => h("span", {}, svg("svg", { width: 22, height: 8, "aria-hidden": "true" }, svg("line", { x1: 0, x2: 22, y1: 4, y2: 4, "stroke-width": 2, "stroke-dasharray": one.dash || false, style: { stroke: one.colour } })), " ", one.name)) : []);
    paintAll();
    if (table.open) fillTable();
  };
  node.readAt = (x) => { cursor = x; read(); };
  node.end = () => watcher.disconnect();
  return node;
};

// Columns between `edges`, each a stack of `counts`; heights are proportional to the root of a count, so that small
// columns are visible. `names`: [name, colour] of the parts of a stack; `lines`: [{at, label, upper}], thresholds whose
// dropped side is tinted; `kind`: "doubling" for a logarithmic axis, "whole" for integers.
const columnChart = (label, { edges, counts, names, lines = [], kind = "", above = 0, showX = valueText }) => {
  const [width, height, room] = [360, 96, { left: 44, top: 22, right: 12, bottom: 26 }];
  const at = kind === "doubling" ? Math.log1p : (value) => value;
  const [first, last] = [edges[0], edges.at(-1)];
  const x = (value) => room.left + ((at(value) - at(first)) / (at(last) - at(first) || 1)) * (width - room.left - room.right);
  const most = Math.max(1, ...counts.map((stack) => stack.reduce((a, b) => a + b, 0)));
  const y = (count) => room.top + height * (1 - (count ? Math.max(Math.sqrt(count / most), 0.03) : 0));
  const base = room.top + height;
  const ticksX = kind === "doubling" ? [0, ...Array.from({ length: 22 }, (_, i) => [1, 3][i % 2] * 10 ** (i >> 1))].filter((one) => one >= first && one <= last)
    : kind === "whole" ? Array.from({ length: Math.ceil((last - first) / Math.max(1, Math.ceil((last - first) / 10))) }, (_, i) => first + i * Math.max(1, Math.ceil((last - first) / 10))) : chartTicks(first, last, false, 0, 5);
  const shift = kind === "whole" ? 0.5 : 0; // an integer is in the middle of its column
  const ticksY = []; // round numbers, well separated on the scale
  for (let power = String(most).length - 1; power >= 0; power--) {
    for (const part of [5, 2, 1]) {
      const one = part * 10 ** power;
      if (one <= most && (!ticksY.length || Math.sqrt(ticksY.at(-1) / most) - Math.sqrt(one / most) > 0.28)) ticksY.push(one);
    }
  }
  const range = (i) => (kind === "whole" && edges[i + 1] - edges[i] <= 1 ? showX(edges[i]) : `${showX(edges[i])} to ${showX(edges[i + 1])}`);
  const described = (i) => `${range(i)}: ${names.map(([name], part) => [name, counts[i][part]]).filter(([, count]) => count).map(([name, count]) => `${whole(count)} ${name}`).join(", ") || "none"}`;
  const output = h("output", { class: "chart-values" });
  const drawing = svg("svg", { class: "chart-drawing", viewBox: `0 0 ${width} ${base + room.bottom}`, width, role: "img", "aria-label": label },
    lines.map((one) => svg("rect", { class: "chart-side", x: one.upper ? x(one.at) : room.left, width: Math.max(0, one.upper ? width - room.right - x(one.at) : x(one.at) - room.left), y: room.top, height })),
    ticksY.map((one) => [svg("line", { class: "chart-grid", x1: room.left, x2: width - room.right, y1: y(one), y2: y(one) }), svg("text", { class: "chart-tick", x: room.left - 7, y: y(one) + 4, "text-anchor": "end" }, shortNumber(one))]),
    counts.map((stack, i) => names.map(([, colour], part) => {
      const below = stack.slice(0, part).reduce((a, b) => a + b, 0);
      return stack[part] ? svg("rect", { x: x(edges[i]), width: Math.max(1, x(edges[i + 1]) - x(edges[i])), y: y(below + stack[part]), height: y(below) - y(below + stack[part]), style: { fill: colour } }) : null;
    })),
    svg("line", { class: "chart-grid", x1: room.left, x2: width - room.right, y1: base, y2: base }),
    ticksX.map((one) => svg("text", { class: "chart-tick", x: x(Math.min(last, one + shift)), y: base + 16, "text-anchor": "middle" }, showX(one) + (above && kind === "whole" && one + 1 >= last ? "+" : ""))),
    lines.map((one) => {
      const end = x(one.at) > width * (one.upper ? 0.8 : 0.2);
      return [svg("line", { class: "chart-threshold", x1: x(one.at), x2: x(one.at), y1: room.top - 4, y2: base }), svg("text", { class: "chart-limit", x: x(one.at) + (end ? 3 : -3), y: room.top - 8, "text-anchor": end ? "end" : "start" }, one.label)];
    }),
    counts.map((_, i) => svg("rect", { class: "chart-hit", x: x(edges[i]), width: Math.max(1, x(edges[i + 1]) - x(edges[i])), y: room.top, height, "data-column": i }, svg("title", {}, described(i)))));
  drawing.addEventListener("pointerover", (event) => { if (event.target.dataset.column) output.textContent = described(event.target.dataset.column); });
  const table = h("details", { class: "as-table" }, h("summary", {}, "Show as a table"));
  table.addEventListener("toggle", () => { if (table.open && table.children.length === 1) table.append(dataTable(label, ["Value", ...names.map(([name]) => name)], counts.flatMap((stack, i) => (stack.some(Boolean) ? [[range(i), ...stack.map(whole)]] : [])))); });
  return h("figure", { class: "chart" }, drawing, output, table);
};

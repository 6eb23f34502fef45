// Script of every page with charts: values on hover and by arrow keys, and the visible section highlighted in the
// navigation. Without scripts the charts still have titles on hover and tables below them.

const JUMPS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
const jumped = (event, at, length) => {
  const jump = JUMPS[event.key];
  if (jump === undefined || event.ctrlKey || event.metaKey || event.altKey) return null;
  event.preventDefault();
  return Math.min(length - 1, Math.max(0, at + jump));
};

// Bars and columns: show the values of the one under the pointer, or chosen by arrow keys.
for (const chart of document.querySelectorAll("[data-marks]")) {
  const output = chart.querySelector("output");
  const drawings = [...chart.querySelectorAll("svg")].map((svg) => [...svg.querySelectorAll(".hit")]);
  if (!drawings.length || !drawings[0].length) continue;
  const values = drawings[0].map((mark) => mark.textContent);
  for (const marks of drawings) for (const mark of marks) mark.querySelector("title").remove(); // shown by the output
  let at = 0;
  const show = (next) => {
    drawings.forEach((marks) => marks.forEach((mark, i) => mark.classList.toggle("here", i === next)));
    output.textContent = next === null ? "" : values[(at = next)];
  };
  chart.addEventListener("pointerover", (event) => {
    for (const marks of drawings) if (marks.includes(event.target)) show(marks.indexOf(event.target));
  });
  chart.addEventListener("pointerleave", () => show(null));
  chart.addEventListener("focus", () => chart.matches(":focus-visible") && show(at));
  chart.addEventListener("blur", () => show(null));
  chart.addEventListener("keydown", (event) => {
    const next = jumped(event, at, values.length);
    if (next !== null) show(next);
  });
  chart.tabIndex = 0;
}

// Curves: show the values at the step under the pointer, or chosen by arrow keys.
for (const figure of document.querySelectorAll("[data-readout]")) {
  const { x, y, logarithmic, series } = JSON.parse(figure.dataset.readout);
  const output = figure.querySelector("output");
  const steps = series.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points.map((point) => point[0]);
  const number = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4))));
  const scaled = (value) => (logarithmic ? Math.log(value) : value);
  let at = steps.length - 1;

  const show = () => {
    const read = series.map((one) => one.points.reduce((a, b) => (Math.abs(b[0] - steps[at]) < Math.abs(a[0] - steps[at]) ? b : a)));
    output.replaceChildren("step " + steps[at].toLocaleString("en"));
    series.forEach((one, i) => {
      const value = document.createElement("b");
      value.style.color = one.color;
      value.textContent = number(read[i][1]);
      const where = read[i][0] === steps[at] ? "" : " (step " + read[i][0].toLocaleString("en") + ")";
      output.append(" · " + (series.length > 1 ? one.name + " " : ""), value, where);
    });
    for (const drawing of figure.querySelectorAll("[data-plot]")) {
      const [left, top, width, height] = drawing.dataset.plot.split(" ").map(Number);
      const svg = drawing.querySelector("svg");
      svg.querySelectorAll(".cursor").forEach((old) => old.remove());
      const put = (name, attributes) => {
        const node = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
        node.setAttribute("class", "cursor");
        for (const key in attributes) node.setAttribute(key, attributes[key]);
      };
      const toX = (value) => left + ((value - x[0]) / (x[1] - x[0])) * width;
      const toY = (value) => top + ((scaled(y[1]) - scaled(value)) / (scaled(y[1]) - scaled(y[0]))) * height;
      put("line", { x1: toX(steps[at]), x2: toX(steps[at]), y1: top, y2: top + height });
      read.forEach((point, i) => put("circle", { cx: toX(point[0]), cy: toY(point[1]), r: 4, fill: series[i].color }));
    }
  };
  const away = () => {
    output.replaceChildren();
    figure.querySelectorAll(".cursor").forEach((old) => old.remove());
  };
  for (const drawing of figure.querySelectorAll("[data-plot]")) {
    const [left, , width] = drawing.dataset.plot.split(" ").map(Number);
    drawing.addEventListener("pointermove", (event) => {
      const box = drawing.querySelector("svg").getBoundingClientRect();
      const unit = drawing.querySelector("svg").viewBox.baseVal.width / box.width;
      const wanted = x[0] + (((event.clientX - box.left) * unit - left) / width) * (x[1] - x[0]);
      at = steps.reduce((best, step, i) => (Math.abs(step - wanted) < Math.abs(steps[best] - wanted) ? i : best), 0);
      show();
    });
    drawing.addEventListener("pointerleave", away);
    drawing.addEventListener("focus", show);
    drawing.addEventListener("blur", away);
    drawing.addEventListener("keydown", (event) => {
      const next = jumped(event, at, steps.length);
      if (next === null) return;
      at = next;
      show();
    });
    drawing.tabIndex = 0;
  }
}

// Navigation: highlight the visible section, and scroll it into the bar.
{
  const bar = document.querySelector("nav ol");
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.getAttribute("href").slice(1), link]));
  const sections = [...document.querySelectorAll("main > section")].filter((section) => links.has(section.id));
  let current = null;
  const mark = () => {
    const passed = sections.filter((section) => section.getBoundingClientRect().top < innerHeight / 3);
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 4;
    const next = atEnd ? sections.at(-1) : passed.at(-1);
    if (next === current) return;
    if (current) links.get(current.id).removeAttribute("aria-current");
    current = next;
    if (!current) return;
    const link = links.get(current.id);
    link.setAttribute("aria-current", "true");
    bar.scrollTo({ left: link.offsetLeft - bar.offsetLeft - bar.clientWidth / 2 + link.offsetWidth / 2 });
  };
  if (bar && sections.length) {
    let waiting = false;
    addEventListener("scroll", () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; mark(); });
    }, { passive: true });
    mark();
  }
}

// Two conveniences; without scripts the page shows all steps below each other and curves without a read-out.

// The samples during training: a slider that shows one step at a time.
for (const box of document.querySelectorAll("[data-slides]")) {
  const slides = [...box.querySelectorAll("[data-slide]")];
  const slider = box.querySelector("input");
  if (!slider) continue; // a single sample
  const show = () => {
    slides.forEach((slide, i) => slide.classList.toggle("away", i !== Number(slider.value)));
    slider.setAttribute("aria-valuetext", slides[slider.value].dataset.slide);
  };
  slider.addEventListener("input", show);
  slider.closest("label").hidden = false;
  show();
}

// Curves: the values at the step under the pointer, or at the one that the arrow keys choose.
for (const figure of document.querySelectorAll("[data-readout]")) {
  const { x, y, series } = JSON.parse(figure.dataset.readout);
  const output = figure.querySelector("output");
  const steps = series.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points.map((point) => point[0]);
  const number = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4))));
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
      const toY = (value) => top + ((y[1] - value) / (y[1] - y[0])) * height;
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
      const jump = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
      if (jump === undefined) return;
      event.preventDefault();
      at = Math.min(steps.length - 1, Math.max(0, at + jump));
      show();
    });
    drawing.tabIndex = 0;
  }
}

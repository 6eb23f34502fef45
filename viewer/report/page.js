// Script of the report: predictions for each token, a slider over samples, a search for documents. Without scripts
// tokens have a title on hover, and all samples and documents are visible.

// Tokens of one page: explain the one under the pointer, touched, or chosen by arrow keys.
for (const box of document.querySelectorAll("[data-tokens]")) {
  const rows = JSON.parse(box.dataset.tokens);
  const cells = [...box.querySelectorAll("[data-token]")];
  const panel = document.getElementById(box.getAttribute("aria-controls"));
  const make = (name, text, kind) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (kind) node.className = kind;
    return node;
  };
  const percent = (p) => (p >= 0.9995 ? "> 99.9 %" : p < 0.0005 ? "< 0.1 %" : (100 * p).toFixed(p < 0.1 ? 1 : 0) + " %");
  const bar = (text, p, isTrue, rank, most) => {
    const row = make("li", undefined, isTrue ? "true" : "");
    const track = make("span", undefined, "track");
    const fill = make("i");
    fill.style.width = Math.max(0.5, (100 * p) / most) + "%";
    track.append(fill);
    row.append(make("span", rank + ".", "rank"), make("code", text), track, make("span", percent(p), "p"));
    if (isTrue) row.append(make("span", "the token that came", "sr"));
    return row;
  };
  let at = -1;
  const show = (next) => {
    if (next === at || !rows[next]) return;
    if (cells[at]) { cells[at].classList.remove("here"); cells[at].removeAttribute("aria-selected"); cells[at].tabIndex = -1; }
    at = next;
    const [text, bits, p, rank, alternatives] = rows[at];
    cells[at].classList.add("here");
    cells[at].setAttribute("aria-selected", "true");
    cells[at].tabIndex = 0;
    const head = make("p", undefined, "chosen");
    const noun = rank === 1 ? "its first guess" : "its guess number " + rank.toLocaleString("en");
    head.append(make("code", text), " came: ", make("b", bits.toFixed(2) + " bits"), ", " + percent(p) + ", " + noun);
    const list = make("ol");
    const most = Math.max(p, ...alternatives.map(([, q]) => q)) || 1; // the longest bar is the likeliest token's
    alternatives.forEach(([other, q], i) => list.append(bar(other, q, i + 1 === rank, i + 1, most)));
    if (rank > alternatives.length) list.append(bar(text, p, true, rank.toLocaleString("en"), most));
    panel.replaceChildren(head, list);
  };
  cells.forEach((cell, i) => { cell.removeAttribute("title"); cell.tabIndex = -1; cell.dataset.token = i; });
  const of = (event) => { const cell = event.target.closest("[data-token]"); return cell ? Number(cell.dataset.token) : -1; };
  // Up and down: the nearest token on the next line.
  const vertical = (step) => {
    const here = cells[at].getClientRects()[0];
    const middle = (here.left + here.right) / 2;
    let line = null, best = at, distance = Infinity;
    for (let i = at + step; i >= 0 && i < cells.length; i += step) {
      const box = cells[i].getClientRects()[0];
      if (!box || Math.abs(box.top - here.top) < here.height / 2) continue;
      if (line !== null && Math.abs(box.top - line) > here.height / 2) break;
      line = box.top;
      const away = Math.abs((box.left + box.right) / 2 - middle);
      if (away < distance) [best, distance] = [i, away];
    }
    return best;
  };
  box.addEventListener("pointerover", (event) => event.pointerType !== "touch" && show(of(event)));
  box.addEventListener("click", (event) => { const i = of(event); if (i >= 0) { show(i); cells[i].focus({ preventScroll: true }); } });
  box.addEventListener("focusin", (event) => show(of(event)));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    let next = step ? vertical(step) : jumped(event, at, cells.length);
    if (next === null) return;
    event.preventDefault();
    show(next);
    cells[at].focus({ preventScroll: true });
    cells[at].scrollIntoView({ block: "nearest" });
  });
  box.setAttribute("role", "listbox");
  cells.forEach((cell) => cell.setAttribute("role", "option"));
  panel.hidden = false;
  show(Number(box.dataset.first));
}

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

// Documents: those with all search words, and the values of the opened one.
for (const box of document.querySelectorAll("[data-thresholds]")) {
  const thresholds = JSON.parse(box.dataset.thresholds);
  const items = [...box.querySelectorAll("[data-values]")];
  const words = items.map((item) => item.textContent.toLowerCase());
  const form = box.querySelector(".find");
  const query = form.querySelector("input"), fate = form.querySelector("select"), output = form.querySelector("output");
  const search = () => {
    const wanted = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    items.forEach((item, i) => {
      const fits = !fate.value || fate.value === item.dataset.reason || fate.value === item.dataset.fate;
      item.hidden = !(fits && wanted.every((word) => words[i].includes(word)));
      found += !item.hidden;
    });
    output.textContent = found + " of " + items.length;
    box.querySelector(".nothing").hidden = found > 0;
  };
  query.addEventListener("input", search);
  fate.addEventListener("input", search);
  form.hidden = false;
  search();

  // [signal, "below" | "at most" | "above", threshold as shown, whether this rule dropped it]
  const side = (value, drops, line) => ({ above: value > line, "at least": value >= line, below: value < line })[drops] ?? value <= line;
  for (const item of items) {
    item.addEventListener("toggle", () => {
      const place = item.querySelector(".measured");
      if (!item.open || !place || place.childElementCount) return;
      const values = JSON.parse(item.dataset.values);
      const table = document.createElement("table");
      const head = table.createTHead().insertRow();
      for (const title of ["Measured", "Value", "Dropped where", "Side"]) {
        const cell = document.createElement("th");
        cell.scope = "col";
        cell.textContent = title;
        head.append(cell);
      }
      const body = table.createTBody();
      thresholds.forEach(([name, drops, line, shown, reason], i) => {
        if (values[i] === null || values[i] === undefined) return;
        const row = body.insertRow();
        const title = document.createElement("th");
        title.scope = "row";
        title.textContent = name;
        row.append(title);
        const beyond = side(values[i], drops, line);
        const decided = reason === item.dataset.reason;
        const texts = [String(Number(values[i].toPrecision(3))), drops + " " + shown, decided ? "dropped here" : beyond ? "would be dropped" : "passes"];
        texts.forEach((text, number) => { const cell = row.insertCell(); cell.textContent = text; if (number < 2) cell.className = "n"; });
        row.className = decided ? "strong" : beyond ? "beyond" : "";
      });
      if (body.rows.length) place.append(table);
    });
  }
}

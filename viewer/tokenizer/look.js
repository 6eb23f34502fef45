// Two conveniences; without scripts the page shows each token's title, and the last state of every story.

// Text: show id and bytes of the token under the pointer, or chosen by arrow keys.
for (const figure of document.querySelectorAll(".cut")) {
  const cells = figure.querySelector(".cells");
  const tokens = [...cells.children];
  const output = figure.querySelector("output");
  let at = -1;
  const show = (next, scroll) => {
    if (tokens[at]) tokens[at].classList.remove("here");
    at = next;
    output.textContent = tokens[at] ? tokens[at].title : "";
    if (!tokens[at]) return;
    tokens[at].classList.add("here");
    if (scroll) tokens[at].scrollIntoView({ block: "nearest" });
  };
  cells.addEventListener("pointerover", (event) => {
    const token = event.target.closest("span");
    if (token) show(tokens.indexOf(token), false);
  });
  cells.addEventListener("keydown", (event) => {
    const jump = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (jump === undefined) return;
    event.preventDefault();
    show(Math.min(tokens.length - 1, Math.max(0, at + jump)), true);
  });
  cells.addEventListener("blur", () => show(-1, false));
}

// A story: bits, then bytes, then merges, up to the position of the slider.
for (const story of document.querySelectorAll("[data-story]")) {
  const { bits, bytes, steps } = JSON.parse(story.dataset.story);
  const slider = story.querySelector("input");
  const cells = story.querySelector(".cells");
  const told = story.querySelector(".told");
  const dot = story.querySelector(".dot");
  const points = story.querySelector("polyline").getAttribute("points").split(" ").map((point) => point.split(",").map(Number));
  const number = (value) => value.toLocaleString("en");
  const node = (name, text, kind) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  // States by merges applied: each token is [its text, whether the last merge created it].
  const states = [bytes.map((text) => [text, false])];
  for (const [, , , minted, at] of steps) {
    const before = states[states.length - 1];
    const after = [];
    const places = new Set(at);
    for (let i = 0; i < before.length; i++) {
      after.push(places.has(i) ? [minted, true] : [before[i][0], false]);
      if (places.has(i)) i++; // skip the right half
    }
    states.push(after);
  }

  const show = () => {
    const value = Number(slider.value);
    if (value === 0) {
      cells.replaceChildren(...bits.map((byte, i) => node("span", byte, i % 2 ? "bit odd" : "bit")));
      told.replaceChildren("Two symbols: ", node("b", number(8 * bits.length)), " bits.");
    } else {
      const state = states[value - 1];
      cells.replaceChildren(...state.map(([text, minted], i) => node("span", text, minted ? "new" : "k" + (i % 4))));
      if (value === 1) {
        told.replaceChildren("256 symbols: ", node("b", number(bytes.length)), " bytes, an eighth of the bits. No merge yet.");
      } else {
        const [rank, left, right, , at] = steps[value - 2];
        told.replaceChildren(
          "Merge " + number(value - 1) + " of " + number(steps.length) + " mints token ", node("b", number(rank)), ": ",
          node("code", left), " + ", node("code", right),
          ", in " + (at.length === 1 ? "one place" : number(at.length) + " places") + ". ", node("b", number(state.length)), " tokens are left.",
        );
      }
    }
    const point = points[value < 1 ? 0 : 2 * (value - 1)];
    dot.hidden = value === 0;
    dot.style.left = point[0] / 10 + "%";
    dot.style.top = point[1] + "%";
    slider.setAttribute("aria-valuetext", told.textContent);
  };
  slider.addEventListener("input", show);
  slider.closest("label").hidden = false;
  slider.value = slider.max; // a reload may restore another position
  show();
}

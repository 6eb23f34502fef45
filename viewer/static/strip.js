// Likely tokens as bars: [[text, probability, mark], …]; `mark` is put before the number.
const tokenBars = (rows) => h("ol", { class: "token-bars" }, rows.map(([text, share, mark]) => h("li", {}, h("bdi", {}, text), shareBar(share), h("span", { class: "n" }, (mark || "") + percent(share)))));

// A text as a row of tokens; pointer, arrow keys and screen readers move from token to token.

// tokens: [{text, ...}]; `decorate(span, token, index)` paints one, `choose(index)` is called for the focused one (-1:
// none), `take(index)` for a click or Enter. With `peek`, a click chooses, and the pointer only calls `peek(index)`.
const tokenStrip = (label, tokens, { decorate, choose, take, peek } = {}) => {
  const spans = tokens.map((token, index) => {
    const span = h("span", { class: "token k" + (index % 4), "data-index": index }, h("bdi", {}, token.text));
    if (decorate) decorate(span, token, index);
    return span;
  });
  let at = -1;
  const mark = (next, scroll) => {
    spans[at]?.classList.remove("here");
    at = next;
    spans[at]?.classList.add("here");
    if (spans[at] && scroll) keepInSight(node, spans[at]);
  };
  const show = (next, scroll) => {
    if (next === at) return;
    mark(next, scroll);
    if (choose) choose(at);
  };
  const over = (act) => (event) => { const span = event.target.closest(".token"); if (span) act(Number(span.dataset.index), event); };
  const node = h("div", {
    class: "strip", dir: "auto", tabindex: "0", role: "group", "aria-label": label + " Arrow keys move between tokens.",
    on: {
      pointerover: over((index, event) => { if (!peek) show(index, false); else if (event.pointerType === "mouse") peek(index); }),
      pointerleave: () => { if (peek) peek(-1); },
      click: over((index) => { if (peek) choose(index); if (take) take(index); }),
      keydown: (event) => {
        if (event.key === "Enter" && at >= 0 && take) { event.preventDefault(); take(at); }
        const jump = arrowJump(event, LINE_JUMPS);
        if (jump !== null) show(bounded(at + jump, spans.length - 1), true);
      },
    },
  }, spans.flatMap((span) => [span, h("wbr", {})]));
  node.mark = mark;
  node.spans = spans;
  return node;
};

// Scroll only the box, not the page.
const keepInSight = (box, child) => {
  const [outer, inner] = [box.getBoundingClientRect(), child.getBoundingClientRect()];
  if (inner.top < outer.top || inner.bottom > outer.bottom) box.scrollTop += inner.top - outer.top - (outer.height - inner.height) / 2;
  if (inner.left < outer.left + 90 || inner.right > outer.right) box.scrollLeft += inner.left - outer.left - (outer.width - inner.width) / 2;
};

// A text as a row of tokens; pointer, arrow keys and screen readers move from token to token.

// tokens: [{text, ...}]; `decorate(span, token, index)` paints one, `choose(index)` is called for the focused one (-1:
// none), `take(index)` for a click or Enter.
const tokenStrip = (label, tokens, { decorate, choose, take } = {}) => {
  const spans = tokens.map((token, index) => {
    const span = h("span", { class: "token k" + (index % 4), "data-index": index }, token.text);
    if (decorate) decorate(span, token, index);
    return span;
  });
  let at = -1;
  const show = (next, scroll) => {
    if (next === at) return;
    if (spans[at]) spans[at].classList.remove("here");
    at = next;
    if (spans[at]) spans[at].classList.add("here");
    if (spans[at] && scroll) spans[at].scrollIntoView({ block: "nearest" });
    if (choose) choose(at);
  };
  const node = h("div", {
    class: "strip", dir: "auto", tabindex: "0", role: "group", "aria-label": label + " Arrow keys move between tokens.",
    on: {
      pointerover: (event) => { const span = event.target.closest(".token"); if (span) show(Number(span.dataset.index), false); },
      click: (event) => { const span = event.target.closest(".token"); if (span && take) take(Number(span.dataset.index)); },
      keydown: (event) => {
        if (event.key === "Enter" && at >= 0 && take) { event.preventDefault(); take(at); }
        const jump = arrowJump(event, LINE_JUMPS);
        if (jump !== null) show(bounded(at + jump, spans.length - 1), true);
      },
    },
  }, spans);
  node.show = show;
  return node;
};

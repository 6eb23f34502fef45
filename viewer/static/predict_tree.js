// A tree of continuations, each path with its probability.

const PREDICT_CHILDREN = 6;

// `ask(ids, signal)` returns the logits after the text and these tokens; `take(ids)` appends a path to the text.
const predictTree = (ask, take) => {
  const tree = h("ul", { class: "predict-tree", role: "tree", "aria-label": "Branches. Right opens a token, left closes it, Enter appends the path." });
  const pathText = h("p", { class: "predict-path", role: "status", "aria-live": "polite" });
  const button = h("button", { type: "button", on: { click: () => { if (chosen) take(chosen.path); } } }, "Append this path");
  const node = h("div", {}, tree, h("div", { class: "predict-chosen" }, pathText, button));
  let root = null;
  let chosen = null;
  let vocabulary = null;
  let settings = PREDICT_PLAIN;

  const branch = (path, logits) => ({ path, logits, open: false, children: null, item: null });
  const childrenOf = (one) => {
    const shares = predictReshape(one.logits, settings);
    const best = [...predictOrder(one.logits).subarray(0, PREDICT_CHILDREN)].filter((id) => shares[id] > 0);
    const before = new Map((one.children || []).map((child) => [child.id, child]));
    one.children = best.map((id) => {
      const child = before.get(id) || Object.assign(branch([...one.path, id], null), { id, parent: one });
      child.share = shares[id];
      child.total = one.total * shares[id];
      if (child.logits) childrenOf(child);
      return child;
    });
  };
  const canOpen = (one) => source.live && !vocabulary.special.has(one.id);

  const draw = (one, level) => {
    const label = h("span", { class: "predict-branch", style: { "--share": 100 * one.share + "%" } },
      h("code", {}, tokensVisible(vocabulary.part(one.id))), h("span", {}, predictShare(one.share)), level > 1 && h("span", { class: "note" }, `path ${predictShare(one.total)}`));
    one.item = h("li", {
      role: "treeitem", "aria-level": level, "aria-expanded": canOpen(one) ? String(one.open) : undefined, "aria-selected": String(one === chosen),
      tabindex: one === chosen ? "0" : "-1",
      "aria-label": `${tokensVisible(vocabulary.part(one.id))}, ${predictShare(one.share)}` + (level > 1 ? `, the path ${predictShare(one.total)}` : ""),
    }, label, one.open && h("ul", { role: "group" }, one.children.map((child) => draw(child, level + 1))));
    one.item.branch = one;
    return one.item;
  };

  const show = () => {
    const focused = tree.contains(document.activeElement);
    if (chosen && !listed().includes(chosen)) chosen = null;
    chosen = chosen || root.children[0] || null;
    tree.replaceChildren(...root.children.map((child) => draw(child, 1)));
    if (focused && chosen) chosen.item.focus({ preventScroll: true });
    showPath();
  };
  const showPath = () => {
    button.hidden = !chosen;
    pathText.replaceChildren(...(chosen ? [h("code", {}, chosen.path.map((id) => tokensVisible(vocabulary.part(id))).join("")), ` ${plural(chosen.path.length, "token")}, probability ${predictShare(chosen.total)}`] : []));
    button.disabled = !chosen || chosen.path.some((id) => vocabulary.special.has(id));
  };
  const listed = (from = root) => from.children.flatMap((child) => [child, ...(child.open ? listed(child) : [])]);
  const choose = (one) => {
    if (!one) return;
    if (chosen?.item) { chosen.item.tabIndex = -1; chosen.item.setAttribute("aria-selected", "false"); }
    chosen = one;
    one.item.tabIndex = 0;
    one.item.setAttribute("aria-selected", "true");
    one.item.focus({ preventScroll: false });
    showPath();
  };

  const toggle = (one, open = !one.open) => {
    if (!canOpen(one)) return undefined;
    if (!open) { one.open = false; show(); return undefined; }
    return context.run(one.item, async (signal) => {
      one.logits = one.logits || await ask(one.path, signal);
      childrenOf(one);
      one.open = true;
      show();
    });
  };

  tree.addEventListener("click", (event) => {
    const item = event.target.closest("[role=treeitem]");
    if (!item) return;
    choose(item.branch);
    toggle(item.branch);
  });
  tree.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !chosen) return;
    const all = listed();
    const at = all.indexOf(chosen);
    const keys = {
      ArrowDown: () => choose(all[at + 1]), ArrowUp: () => choose(all[at - 1]), Home: () => choose(all[0]), End: () => choose(all[all.length - 1]),
      ArrowRight: () => (chosen.open ? choose(chosen.children[0]) : toggle(chosen, true)),
      ArrowLeft: () => (chosen.open ? toggle(chosen, false) : chosen.parent !== root && choose(chosen.parent)),
      " ": () => toggle(chosen), Enter: () => { if (!button.disabled) take(chosen.path); },
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });

  // A new text: rebuild the tree.
  node.set = (logits, ofVocabulary, ofSettings) => {
    vocabulary = ofVocabulary;
    settings = ofSettings;
    root = Object.assign(branch([], logits), { open: true, total: 1 });
    chosen = null;
    childrenOf(root);
    show();
  };
  node.reshape = (ofSettings) => {
    settings = ofSettings;
    if (!root) return;
    childrenOf(root);
    show();
  };
  return node;
};

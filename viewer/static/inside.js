// The page Inside: the network drawn from its config, and the reader's own text flowing through it.

const insideArray = ({ shape, ...array }) => ({ shape, data: toArray(array) });
// The answer "layers": attention [layers, heads, T, T], lengths [layers, T], and those of the residual stream [layers + 1, T].
const insideData = (answer) => {
  const attention = insideArray(answer.attention);
  const [layers, heads, count] = attention.shape;
  const [embedding, behind, after] = ["embedding", "attention", "mlp"].map((place) => insideArray(answer.residual[place]));
  return {
    tokens: answer.tokens, ids: answer.ids, dropped: answer.dropped, layers, heads, count, attention: attention.data, lens: answer.lens,
    added: { attention: insideArray(answer.added.attention), mlp: insideArray(answer.added.mlp) }, behind, came: insideArray(answer.came),
    stream: { shape: [layers + 1, count], data: [...embedding.data, ...after.data] }, windows: answer.windows,
  };
};

const INSIDE_EXAMPLE = "Once upon a time there was a little girl who liked to read.";

const insideMount = (root, context, parameters) => {
  if (!shared.text && source.live) shared.text = INSIDE_EXAMPLE; // default for a run without prompts
  const say = (parts, ...rest) => h("p", { class: "inside-lead" }, parts, ...rest);
  const [drawing, crumbs, about] = [h("div", { class: "inside-canvas" }), h("nav", { class: "inside-crumbs", "aria-label": "Path in the network" }), h("aside", { class: "inside-about" })];
  const places = { attention: h("div"), stream: h("div"), lens: h("div") };
  const stripPlace = h("div");
  const problem = h("div", { "aria-live": "polite" });
  const network = h("section", { class: "inside-section inside-network", "aria-label": "The network" }, crumbs, h("div", { class: "inside-view" }, drawing, about));
  const flow = h("div", {},
    h("section", { class: "inside-section", "aria-labelledby": "inside-attention" }, h("h2", { id: "inside-attention" }, "Attention"),
      say("Each square is one head: rows are queries, columns are keys. A colored diagonal is a head that attends to the previous token; a colored column is a token that all attend to."), places.attention),
    h("section", { class: "inside-section", "aria-labelledby": "inside-stream" }, h("h2", { id: "inside-stream" }, "Residual stream"),
      say("Each token has one vector that runs through all layers, the residual stream. Attention and MLP add to it."), places.stream),
    h("section", { class: "inside-section", "aria-labelledby": "inside-lens" }, h("h2", { id: "inside-lens" }, "Logit lens"),
      say("The residual stream after each layer, turned into a prediction: early layers guess, later ones settle."), places.lens));

  const view = {
    model: null, data: null, at: "", token: -1, layer: 0, head: 0, lens: -1,
    node: () => view.model.nodes.get(view.at) || view.model.tree,
    zoom(path) {
      zoomed = true;
      view.at = path;
      context.show("inside", view.address());
    },
    address() {
      const { data, at, token, layer, head, lens } = view;
      const own = { ...(at && { at }), ...(layer && { layer }), ...(head && { head }) };
      if (data && token !== data.count - 1) own.token = token;
      if (data && lens !== data.lens.length - 1) own.lens = lens;
      return own;
    },
    // Select another token, layer or head: update all parts that show it, and the URL.
    set(values) {
      const changed = Object.keys(values).filter((name) => view[name] !== values[name]);
      if (!changed.length) return;
      Object.assign(view, values);
      history.replaceState(null, "", address("inside", view.address()));
      showChanges(changed);
    },
  };
  let [parts, strip, drawnAt, drawnFor, zoomed] = [[], null, null, 0, false];
  const followed = h("output", { class: "note inside-followed", "aria-live": "polite" });
  const follow = () => {
    strip.mark(view.token, true);
    followed.replaceChildren(`Selected: token ${view.token + 1} of ${view.data.count}, “`, h("bdi", {}, view.data.tokens[view.token]), "”.");
  };
  const showChanges = (changed) => {
    if (changed.includes("token") && strip) follow();
    for (const part of parts) part.update(changed);
    if (changed.some((name) => ["token", "layer", "head"].includes(name))) draw();
  };

  const draw = () => {
    if (!view.model) return;
    const node = view.node();
    const room = drawing.clientWidth < 560 ? 44 : INSIDE_FAMILIES.includes(node.kind) || node.kind === "headslice" ? 10 : view.data ? 330 : 190;
    const width = Math.max(200, drawing.clientWidth - room);
    const focused = drawnAt === node.path ? [...drawing.querySelectorAll("button")].indexOf(document.activeElement) : -1;
    drawnFor = drawing.clientWidth;
    drawing.replaceChildren(...insideDraw(view, node, width).filter(Boolean));
    if (focused >= 0) drawing.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
    if (node.kind === "headslice" && view.data) drawing.append(insideHeadMap(view, node));
    if (drawnAt === node.path) return;
    drawnAt = node.path;
    insideCrumbs(view, node, crumbs);
    about.replaceChildren(...insideCard(node));
    if (!zoomed) return;
    zoomed = false;
    about.querySelector("h2").focus({ preventScroll: true });
    if (network.getBoundingClientRect().top < 0) network.scrollIntoView({ block: "start" });
  };

  const readOwn = (given) => {
    const number = (name, most) => (/^\d+$/.test(given[name] ?? "") ? Math.min(most, Number(given[name])) : null);
    view.at = given.at || "";
    if (!view.data) return;
    const { count, layers, heads, lens } = view.data;
    view.token = number("token", count - 1) ?? count - 1;
    view.layer = number("layer", layers - 1) ?? 0;
    view.head = number("head", heads - 1) ?? 0;
    view.lens = number("lens", lens.length - 1) ?? lens.length - 1;
    const node = view.model && view.node();
    const layer = node ? insideLayerOf(node) : null;
    if (layer !== null && layer < layers) view.layer = layer;
    if (node && insideChain(node).some((one) => one.kind === "headslice")) view.head = insideChain(node).find((one) => one.kind === "headslice").index;
  };

  const fill = (answer) => {
    const [before, atEnd] = [view.data, view.data && view.token === view.data.count - 1];
    view.data = insideData(answer);
    [parts, strip] = [[], null]; // the existing ones are of the previous text
    if (before) view.set({ token: atEnd ? view.data.count - 1 : Math.min(view.token, view.data.count - 1) });
    readOwn(pageParameters());
    strip = insideTokens("Your text as tokens. The views below show the selected one.", view.data.tokens, (at) => view.set({ token: at }));
    follow();
    stripPlace.replaceChildren(h("p", { class: "note" }, followed, " Select another with the pointer or the arrow keys.",
      view.data.dropped ? ` Only the first ${whole(view.data.count)} tokens are shown; ${plural(view.data.dropped, "more token")} omitted.` : ""), strip);
    parts = [insideAttention(view), insideStream(view), insideLens(view)];
    for (const [at, place] of Object.values(places).entries()) place.replaceChildren(parts[at]);
    flow.hidden = false;
    problem.replaceChildren();
    for (const part of parts) part.update(["token"]); // after insertion, so that they can scroll
    draw();
  };

  const askLayers = () => context.run(problem, async (signal) => {
    const fields = { text: shared.text, step: shared.step };
    if (!source.has("layers", fields)) {
      flow.hidden = true;
      problem.replaceChildren(servedNote("The activations were not recorded for this text."));
      return;
    }
    fill(await source.ask("layers", fields, signal));
  });
  const askModel = () => context.run(network, async (signal) => {
    view.model = insideRead(await source.ask("architecture", {}, signal));
    readOwn(pageParameters());
  });

  const box = source.live ? promptBox("Text (the first 64 tokens are shown)", () => askLayers()) : h("p", {}, shared.text ? ["Recorded for the text ", h("q", { dir: "auto" }, shared.text)] : "");
  root.append(box, problem, stripPlace, network, flow);
  flow.hidden = true;
  const zoomOut = (event) => {
    if (event.key !== "Escape" || !view.model || !view.node().above) return;
    event.preventDefault();
    view.zoom(view.node().above.path);
  };
  document.addEventListener("keydown", zoomOut);
  const watch = new ResizeObserver(settled(() => { if (drawing.clientWidth !== drawnFor) draw(); }, 60));
  watch.observe(drawing);
  const shades = matchMedia("(prefers-color-scheme: dark)");
  const recolour = () => { if (view.data) { parts[0] = insideAttention(view); places.attention.replaceChildren(parts[0]); } };
  shades.addEventListener("change", recolour);
  view.at = parameters.at || "";
  askModel().then(() => { draw(); askLayers(); });

  let [text, step] = [shared.text, shared.step];
  return {
    follows: true,
    update(changed) {
      if (text !== shared.text || step !== shared.step) {
        [text, step] = [shared.text, shared.step];
        if (box.field && box.field.value !== text) box.field.value = text;
        if (!changed.includes("text") || changed.includes("address")) askLayers();
      }
      if (!changed.includes("address") || !view.model) return;
      const before = { token: view.token, layer: view.layer, head: view.head, lens: view.lens };
      readOwn(pageParameters());
      showChanges(Object.keys(before).filter((name) => before[name] !== view[name]));
      draw();
    },
    unmount() {
      watch.disconnect();
      document.removeEventListener("keydown", zoomOut);
      shades.removeEventListener("change", recolour);
    },
  };
};

// Breadcrumbs: a link to each parent.
const insideCrumbs = (view, node, crumbs) => {
  if (!node.above) {
    crumbs.replaceChildren(h("p", { class: "note" }, "From tokens to predictions, step by step. Choose a part to zoom in."));
    return;
  }
  const link = (one) => h("button", { type: "button", class: "inside-link", on: { click: () => view.zoom(one.path) } }, one.above ? insideTitle(one) : "The network");
  crumbs.replaceChildren(
    h("ol", {}, insideChain(node).map((one) => h("li", {}, one === node ? h("span", { "aria-current": "location" }, insideTitle(one)) : link(one)))),
    h("button", { type: "button", class: "inside-back", on: { click: () => view.zoom(node.above.path) } }, "Back ", h("kbd", {}, "Esc")));
};

// Description of one part.
const insideCard = (node) => {
  const fact = (name, value) => (value ? [h("dt", {}, name), h("dd", {}, value)] : []);
  const formula = insideFormula(node);
  const above = node.above?.above && node.above.parameters ? `${percent(node.parameters / node.above.parameters)} of ${insideTitle(node.above).toLowerCase()}` : "";
  return [
    h("h2", { tabindex: "-1" }, node.above ? insideTitle(node) : "The network"),
    h("p", {}, insideExplain(node)),
    h("dl", {},
      fact("Parameters", node.tied ? "none (shared)" : h("b", {}, whole(node.parameters))),
      fact("Share", node.above && !node.tied ? h("span", {}, percent(insideShare(node)) + " of the network", above ? [h("br"), above] : "") : ""),
      fact("Shape", node.shape ? insideShape(node, true) : ""),
      fact("Heads", node.kind === "attention" && node.heads ? `${whole(node.heads)}${node.kv_heads && node.kv_heads !== node.heads ? `, sharing ${whole(node.kv_heads)} sets of keys and values` : ""}` : ""),
      fact("Attends to", node.kind === "attention" ? (node.window ? `the last ${plural(node.window, "token")}` : "all earlier tokens") : "")),
    formula ? h("div", { class: "inside-formula" }, h("span", {}, "Formula"), h("code", {}, formula.replaceAll("(", "(\u200b"))) : "",
  ];
};

// Attention map of the zoomed head on the reader's text.
const insideHeadMap = (view, node) => {
  const layer = insideLayerOf(node);
  if (layer === null || layer >= view.data.layers || node.index >= view.data.heads) return "";
  const canvas = h("canvas", { class: "inside-thumb", role: "img", "aria-label": "Attention of this head on your text; a larger map is below." });
  insidePaint(canvas, view.data, layer, node.index, view.data.windows[layer], insidePalette());
  return h("figure", {}, canvas, h("figcaption", {}, "Attention of this head on your text: rows are queries, columns are keys."));
};

pages.push({
  id: "inside", title: "Inside", mount: insideMount,
  about: "The network, drawn from its config to scale, and the activations for your text. Click a part to zoom in; Escape goes back.",
});

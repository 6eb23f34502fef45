// Tree of a network's parts from the answer "architecture": paths, families, heads, shapes.

// Explanations of parts for newcomers, in addition to the answer's own description.
const insideWhy = {
  model: "A language model reads tokens and predicts the next one after each. Everything it learned is in the arrays below; areas are proportional to their parameters.",
  embedding: "Each token has a row in this table, a vector. Training moved tokens that are used alike close together.",
  blocks: "Each block reads the residual stream and adds something to it. Later blocks build on earlier ones.",
  block: "A block has two steps: attention reads from earlier tokens, then the MLP works on each token by itself. Both only add to the stream.",
  attention: "Attention lets a token read from earlier tokens. Each head computes weights over them, and a weighted sum of their values.",
  headslice: "A head is a slice of the attention matrices with its own weights. The last matrix combines all heads.",
  mlp: "The MLP works on one token at a time: it widens the vector, applies an activation, and narrows it again. Much of a model's knowledge is in here.",
  norm: "A norm scales a vector to a common length before a step reads it. Without norms the numbers would grow from block to block, and training would fail.",
  head: "The output compares the final vector with a vector for each token of the vocabulary. The better the match, the likelier the token.",
  matrix: "A matrix maps one vector to another: each output is a weighted sum of all inputs.",
  vector: "One number per channel, which scales or shifts the channel. It is small, so it is drawn as a line.",
};

const insideExplain = (node) => {
  const why = insideWhy[node.kind] || insideWhy[node.family] || (node.shape ? insideWhy[node.shape.length > 1 ? "matrix" : "vector"] : "");
  return [node.about, why].filter(Boolean).join(" ");
};

const INSIDE_FAMILIES = ["embedding", "attention", "mlp", "norm", "head"];
const insideFamily = (kind, above) => (INSIDE_FAMILIES.includes(kind) ? kind : above || "other");

// Axis letters at the end of names in the code.
const INSIDE_AXES = { vocab: "V", width: "D", heads: "I", kv_heads: "J", mlp: "F", position: "P", ngram: "N", channels: "C", layers: "L" };
const insideLetter = (axis) => INSIDE_AXES[axis] || (axis || "?").slice(0, 1).toUpperCase();

const insideTitle = (node) => {
  if (node.title) return node.title;
  if (node.kind === "block" || node.kind === "headslice") return (node.kind === "block" ? "Block " : "Head ") + (Number(node.index) + 1);
  const words = String(node.name).replaceAll("_", " ").replace(/\bmlp\b/, "MLP").replace(/^ngrams$/, "n-grams");
  return words.slice(0, 1).toUpperCase() + words.slice(1);
};

// "96 × 384", and with letters "D 96 × F 384".
const insideShape = (node, letters = false) =>
  node.shape.map((size, axis) => (letters && node.axes ? insideLetter(node.axes[axis]) + " " : "") + whole(size)).join(" × ");

const insideFormula = (node) => {
  if (node.formula) return node.formula;
  if (!node.shape || !node.axes) return "";
  const letters = node.axes.map(insideLetter);
  if (node.shape.length === 1) return "";
  if (node.family === "embedding") return `x_T${letters[1]} = W_${letters.join("")}[${node.axes[0]} of each token]`;
  return `y_T${letters[1]} = x_T${letters[0]} · W_${letters.join("")}`;
};

// Collapse a part with a single matrix into it.
const insideMerged = (node) => {
  const children = node.children || [];
  if (children.length !== 1 || (children[0].children || []).length || !(children[0].shape || []).length || node.kind === "blocks" || node.kind === "block") return node;
  return { ...children[0], ...node, shape: children[0].shape, axes: children[0].axes, formula: node.formula || children[0].formula, children: [] };
};

// {tree, nodes: Map(path -> node), blocks, config}: nodes have path, parent, family, share.
const insideRead = (answer) => {
  const nodes = new Map();
  const blocks = [];
  const config = answer.config || {};
  const walk = (given, above, index) => {
    const node = { ...insideMerged(given), above, index };
    node.shape = node.shape?.length ? node.shape : null;
    node.path = above ? (above.path ? above.path + "/" : "") + node.name : "";
    node.family = insideFamily(node.kind, above?.family);
    if (node.kind === "block") {
      node.index = blocks.length;
      blocks.push(node);
    }
    nodes.set(node.path, node);
    node.children = (node.children || []).map((child, at) => walk(child, node, at));
    if (node.kind === "attention") insideHeads(node, config, nodes);
    return node;
  };
  const tree = walk({ ...answer, kind: answer.kind || "model" }, null, 0);
  return { tree, nodes, blocks, config };
};

const insideLeaves = (node) => (node.children.length ? node.children.flatMap(insideLeaves) : node.shape ? [node] : []);
const insideHeadAxis = (node) => (node.axes || []).findIndex((axis) => axis === "heads" || axis === "kv_heads");
const insideWhole = (node) => (node.above ? insideWhole(node.above) : node);
const insideShare = (node) => node.parameters / (insideWhole(node).parameters || 1);

// Heads of an attention as parts to zoom to: slices of the matrices with a heads axis.
const insideHeads = (node, config, nodes) => {
  const heads = node.heads || config.heads || 0;
  const groups = node.kv_heads || config.kv_heads || heads;
  const sliced = insideLeaves(node).filter((leaf) => insideHeadAxis(leaf) >= 0);
  node.heads = heads;
  node.slices = !heads || !sliced.length ? [] : Array.from({ length: heads }, (_, index) => {
    const slice = { name: "head " + (index + 1), kind: "headslice", index, above: node, family: "attention", shape: null, about: "" };
    slice.path = node.path + "/" + slice.name;
    slice.children = sliced.map((leaf) => {
      const axis = insideHeadAxis(leaf);
      const own = leaf.axes[axis] === "heads";
      const count = own ? heads : groups;
      const shape = leaf.shape.map((size, at) => (at === axis ? size / count : size));
      const shared = own ? 1 : heads / groups;
      const at = own ? index : Math.floor(index / shared);
      const named = leaf.above !== node && leaf.above ? leaf.above.name + " " + leaf.name : leaf.name;
      return {
        name: named, kind: leaf.kind, above: slice, family: "attention", children: [], shape, shared, of: leaf,
        axes: leaf.axes.map((one, place) => (place === axis ? "channels" : one)), from: axis, at, count,
        parameters: shape.reduce((product, size) => product * size, 1), path: slice.path + "/" + named,
        about: `This head's part of "${insideTitle(leaf)}"` + (shared > 1 ? `, shared by ${whole(shared)} heads.` : "."),
      };
    });
    slice.parameters = slice.children.reduce((sum, one) => sum + one.parameters, 0);
    const shares = slice.children.some((one) => one.shared > 1);
    slice.about = `Head ${index + 1} of ${heads}.` + (shares ? ` Its keys and values are shared by ${whole(heads / groups)} heads.` : "");
    nodes.set(slice.path, slice);
    for (const child of slice.children) nodes.set(child.path, child);
    return slice;
  });
};

const insideChain = (node) => (node.above ? [...insideChain(node.above), node] : [node]);
const insideLayerOf = (node) => {
  const block = insideChain(node).find((one) => one.kind === "block");
  return block ? block.index : null;
};

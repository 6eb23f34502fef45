// Elements made of text: content of a page, a model or a file name is never parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

const fillIn = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (name === "style") for (const [property, one] of Object.entries(value)) node.style.setProperty(property, one);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false));
  return node;
};

// h("p", {class: "note", on: {click: act}, style: {"--share": "5%"}}, "text", node, [more nodes])
const h = (tag, attributes, ...children) => fillIn(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fillIn(document.createElementNS(SVG, tag), attributes, children);

// Scrollable box for content that may be wider than the page; arrow keys work too.
const scroller = (label, ...children) => h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, children);

const whole = (value) => Math.round(value).toLocaleString("en");
const decimals = (value, places = 2) => (Number.isFinite(value) ? value.toFixed(places) : "–");
const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1" : (100 * share).toFixed(1)) + " %";
const plural = (count, one, many = one + "s") => whole(count) + " " + (count === 1 ? one : many);
const bytesText = (value) => {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (value >= size) return (value / size).toPrecision(3).replace(/\.$/, "") + " " + unit;
  return plural(value, "byte");
};
const duration = (seconds) => {
  if (seconds < 90) return seconds < 10 ? `${decimals(seconds, 1)} seconds` : plural(seconds, "second");
  return seconds < 5400 ? plural(seconds / 60, "minute") : decimals(seconds / 3600, 1) + " hours";
};
// A measured value or a threshold.
const valueText = (value) => {
  if (value === null || value === undefined) return "not measured";
  return Number.isInteger(value) || Math.abs(value) >= 1000 ? whole(value) : String(Number(value.toPrecision(3)));
};

// Text of documents and models, with invisible and direction-changing characters escaped.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const plainText = (text) => String(text).replace(HIDDEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));

const note = (...children) => h("p", { class: "note" }, children);
const put = (place, ...children) => { place.replaceChildren(); fillIn(place, {}, children); };

// A table: `heads` and cells are texts or nodes; the first cell of a row is its heading, the others are right-aligned.
const dataTable = (caption, heads, rows, attributes = {}) => scroller(caption || heads[0], h("table", attributes,
  caption ? h("caption", {}, caption) : null,
  h("thead", {}, h("tr", {}, heads.map((head, i) => h("th", { scope: "col", class: i ? "n" : null }, head)))),
  h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, i) => (i ? h("td", { class: "n" }, cell) : h("th", { scope: "row" }, cell))))))));

// A bar of `share` of the full width; a second part, of `rest`, is hatched.
const shareBar = (share, rest = 0) => h("div", { class: "share-bar", "aria-hidden": "true" },
  h("span", { class: "left", style: { width: 100 * share + "%" } }), rest ? h("span", { class: "gone", style: { width: 100 * rest + "%" } }) : null);

// Arrow keys: the entry of `jumps` for the pressed key, null for other keys.
const LINE_JUMPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -Infinity, End: Infinity };
const GRID_JUMPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -Infinity], End: [0, Infinity] };
const arrowJump = (event, jumps) => {
  if (!Object.hasOwn(jumps, event.key) || event.ctrlKey || event.metaKey || event.altKey) return null;
  event.preventDefault();
  return jumps[event.key];
};
const bounded = (value, most) => Math.min(most, Math.max(0, value));

// Decode base64 of little-endian numbers, the server's format for arrays.
const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };
const toArray = ({ type, data }) => {
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new ARRAYS[type](bytes.buffer);
};

// Debounce: one call, `wait` ms after the last of a series of events.
const settled = (act, wait) => {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...values), wait);
  };
};

const slider = (label, { min, max, step = 1, value, show = String, on }) => {
  const output = h("output", {}, show(value));
  const input = h("input", {
    type: "range", min, max, step, value,
    on: { input: () => { output.textContent = show(Number(input.value)); input.setAttribute("aria-valuetext", output.textContent); on(Number(input.value)); } },
  });
  input.setAttribute("aria-valuetext", output.textContent);
  const node = h("label", { class: "slider" }, h("span", {}, label), input, output);
  node.input = input;
  node.set = (next) => { input.value = next; output.textContent = show(Number(input.value)); input.setAttribute("aria-valuetext", output.textContent); };
  return node;
};

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
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait);
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

// Frame around the pages: navigation, the shared text and step, the URL, errors.

const pages = [];
/* Each page adds {id, title, about, mount(root, context)}; mount may return {update(changed), unmount(), follows}. A page
   that `follows` the URL gets "address" when its own parameters change there; others are mounted again. */

const shared = { text: "", step: null, run: null };
const MOST_IN_ADDRESS = 2000; // characters of the text

const context = {
  shared,
  model: null, // the answer of "model"

  // Change shared values; the visible page gets the names of the changed ones.
  set(values) {
    const changed = Object.keys(values).filter((name) => shared[name] !== values[name]);
    if (!changed.length) return;
    Object.assign(shared, values);
    remember();
    showStep();
    if (current?.update) current.update(changed);
  },

  show(id, parameters = {}) {
    location.hash = address(id, parameters);
  },

  // Run `work(signal)`; show errors in `place`. A later run for the same place aborts an earlier one, and restores
  // the contents from before an error.
  async run(place, work) {
    running.get(place)?.abort();
    const failed = failures.get(place);
    if (failed && failed.problem.parentNode === place) place.replaceChildren(...failed.before);
    failures.delete(place);
    const control = new AbortController();
    running.set(place, control);
    place.setAttribute("aria-busy", "true");
    showWaiting();
    try {
      return await work(control.signal);
    } catch (error) {
      if (control.signal.aborted || error.name === "AbortError") return undefined;
      // A link may have a step whose checkpoint was deleted.
      const back = error.param === "step" && shared.step !== null && h("button", { type: "button", on: { click: () => context.set({ step: null }) } }, "Back to the served step");
      const problem = h("p", { class: "problem", role: "alert" }, error.message, " ", back);
      failures.set(place, { problem, before: [...place.childNodes] });
      place.replaceChildren(problem);
      if (!(error instanceof NotRecorded)) console.warn(error.message);
      return undefined;
    } finally {
      if (!running.has(place) || running.get(place) === control) {
        running.delete(place);
        place.removeAttribute("aria-busy");
      }
      showWaiting();
    }
  },

  cancel(place) {
    running.get(place)?.abort();
  },
};

const running = new Map();
const failures = new WeakMap(); // place: {problem, before}
let waitTimer = 0;

// Show below the navigation that an answer is pending, once it takes noticeably long.
const showWaiting = () => {
  clearTimeout(waitTimer);
  const status = document.querySelector("#waiting");
  if (!running.size) status.textContent = "";
  else {
    waitTimer = setTimeout(async () => {
      const doing = await source.doing();
      if (running.size) status.textContent = doing ? `Waiting: ${doing}.` : "Waiting …";
    }, 700);
  }
};

let current = null;
let currentId = "";

const address = (id, parameters = {}) => {
  const all = { ...parameters };
  if (shared.text && shared.text.length <= MOST_IN_ADDRESS) all.text = shared.text;
  if (shared.step !== null) all.step = shared.step;
  const query = new URLSearchParams(all).toString();
  return "#" + id + (query ? "?" + query : "");
};

// Show the selected step at the top, if it is not the served one.
const showStep = () => {
  const place = document.querySelector("#step");
  place.hidden = shared.step === null || shared.step === context.model.step;
  if (place.hidden) place.replaceChildren();
  else place.replaceChildren(`Showing the model at step ${whole(shared.step)}. `, h("button", { type: "button", on: { click: () => context.set({ step: null }) } }, `Back to step ${whole(context.model.step)}`));
};

const remember = () => history.replaceState(null, "", address(currentId, pageParameters()));

const readAddress = (hash = location.hash) => {
  const [id, query] = hash.slice(1).split(/\?(.*)/s);
  return { id, parameters: Object.fromEntries(new URLSearchParams(query || "")) };
};

// The page's own parameters in the URL, besides the text and the step.
const pageParameters = (hash) => {
  const { text, step, ...own } = readAddress(hash).parameters;
  return own;
};

// Show the page of the URL; `before` is the previous URL.
const route = (before = "") => {
  const { id, parameters } = readAddress();
  const page = pages.find((one) => one.id === id) || pages[0];
  if (parameters.text !== undefined) shared.text = parameters.text;
  if (/^\d+$/.test(parameters.step ?? "")) shared.step = Number(parameters.step);
  else if (parameters.text !== undefined) shared.step = null; // a complete URL without a step: the served one
  showStep();
  const main = document.querySelector("main");
  const another = page.id !== currentId;
  if (another || (!current.follows && canonical(pageParameters()) !== canonical(pageParameters(before)))) {
    for (const control of running.values()) control.abort();
    running.clear();
    if (current?.unmount) current.unmount();
    currentId = page.id;
    const root = h("div", { class: "page page-" + page.id });
    main.replaceChildren(h("h1", { tabindex: "-1" }, page.title), h("p", { class: "lead" }, page.about), root);
    document.title = page.title + " · " + (context.model ? context.model.name : "Gristmill");
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.page === page.id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    current = page.mount(root, context, pageParameters()) || {};
    if (another && before) { // like a newly opened page: at its top
      scrollTo(0, 0);
      main.querySelector("h1").focus({ preventScroll: true });
    }
  } else if (current?.update) {
    current.update(["text", "step", "address"]);
  }
};

// Input for the text that all pages share. `act` is called 150 ms after the last key.
const promptBox = (label, act) => {
  const field = h("textarea", {
    id: "prompt", rows: 3, maxlength: 20000, spellcheck: false, dir: "auto",
    on: { input: settled(() => { context.set({ text: field.value }); act(field.value); }, 150) },
  });
  field.value = shared.text;
  const node = h("div", { class: "prompt-box" }, h("label", { for: "prompt" }, label), field);
  node.field = field;
  return node;
};

// Last script: all pages are registered; show the first.

// Pages of this file: those that it names, else all that a run has.
const limited = recorded?.pages ?? null;
const PAGE_ORDER = ["report", "chat", "tokens", "predict", "inside", "training", "data", "trace"];
// The report of an assistant is in its own file; its window begins with the page Chat.
const hasPage = (id) => (id === "chat" ? (source.live ? context.model.chat : source.has("chat")) : id !== "report" || !(source.live && context.model.chat));

const keyForm = document.querySelector("#key");
document.addEventListener("key-wanted", () => { keyForm.hidden = false; });
keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, keyForm.querySelector("input").value.trim());
  location.reload();
});

put(document.querySelector("footer"), source.live ? ["Computed by this server. API: ", h("code", {}, "/v1/inspect")] : limited ? "This page is one file and loads nothing." : ["Recorded when the report was written. Live: ", h("code", { class: "serve-command" }, serveCommand())]);

const start = async () => {
  // Mount the first page after this work: showing a page aborts running work, and `main` would stay busy.
  context.model = await context.run(document.querySelector("main"), (signal) => source.ask("model", {}, signal));
  if (!context.model) return;
  pages.splice(0, pages.length, ...(limited || PAGE_ORDER.filter(hasPage)).map((id) => pages.find((page) => page.id === id)));
  put(document.querySelector("nav ol"), pages.map((page) => h("li", {}, h("a", { href: "#" + page.id, "data-page": page.id, on: { click: (event) => { event.preventDefault(); context.show(page.id); } } }, page.title))));
  const { name, step, parameters } = context.model;
  document.querySelector(".kicker span").textContent = name + (step === undefined ? "" : ` · step ${whole(step)} · ${whole(parameters)} parameters`) + (source.live || limited ? "" : " · recorded");
  if (!shared.text) shared.text = context.model.prompt || "";
  addEventListener("hashchange", (event) => route(new URL(event.oldURL).hash || "#"));
  route();
};
start();

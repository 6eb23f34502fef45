// Last script: all pages are registered; show the first.

const navigation = document.querySelector("nav ol");
for (const page of pages) {
  navigation.append(h("li", {}, h("a", { href: "#" + page.id, "data-page": page.id, on: { click: (event) => { event.preventDefault(); context.show(page.id); } } }, page.title)));
}

const keyForm = document.querySelector("#key");
document.addEventListener("key-wanted", () => { keyForm.hidden = false; });
keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, keyForm.querySelector("input").value.trim());
  location.reload();
});

for (const place of document.querySelectorAll(".serve-command")) place.textContent = serveCommand();

const start = async () => {
  // Mount the first page after this work: showing a page aborts running work, and `main` would stay busy.
  context.model = await context.run(document.querySelector("main"), (signal) => source.ask("model", {}, signal));
  if (!context.model) return;
  const { name, step, parameters } = context.model;
  document.querySelector(".kicker span").textContent = `${name} · step ${whole(step)} · ${whole(parameters)} parameters` + (source.live ? "" : " · recorded");
  if (!shared.text) shared.text = context.model.prompt || "";
  addEventListener("hashchange", (event) => route(new URL(event.oldURL).hash || "#"));
  route();
};
start();

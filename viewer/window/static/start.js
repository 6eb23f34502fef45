// The last script: the pages are there, the first is shown.

const navigation = document.querySelector("nav ol");
for (const page of pages) {
  navigation.append(h("li", {}, h("a", { href: "#" + page.id, "data-page": page.id, on: { click: (event) => { event.preventDefault(); context.show(page.id); } } }, page.title)));
}

const keyForm = document.querySelector("#key");
document.addEventListener("key-wanted", () => { keyForm.hidden = false; });
keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, keyForm.querySelector("input").value);
  location.reload();
});

const start = async () => {
  const place = document.querySelector("main");
  await context.run(place, async (signal) => {
    context.model = await source.ask("model", {}, signal);
    const { name, step, parameters } = context.model;
    document.querySelector(".kicker span").textContent = `${name} · step ${whole(step)} · ${whole(parameters)} parameters` + (source.live ? "" : " · recorded");
    if (!shared.text) shared.text = context.model.prompt || "";
    addEventListener("hashchange", route);
    route();
  });
};
start();

// The page "Start": a summary of each page, in the order of the tour.

// Command that serves this run, to be run in the repository. An exported page is in the run's report/ folder.
const serveCommand = (options = "") => {
  const found = location.protocol === "file:" ? decodeURIComponent(location.pathname).match(/^(.+)\/report\/[^/]+$/) : null;
  const run = source.live || !found ? "RUN_FOLDER" : found[1];
  return `.venv/bin/python -m launch.serve ${/^[\w./-]+$/.test(run) ? run : "'" + run.replace(/'/g, "'\\''") + "'"}${options}`;
};

const OVERVIEW_DO = {
  tokens: "Type a sentence. See the pieces that the model reads, and how the tokenizer learned them.",
  predict: "Read the chances of the next token. Move the temperature, then let the model write.",
  inside: "Follow your text through the layers: attention, and what each layer would answer.",
  training: "Drag the slider over the steps and watch the model get better at one sentence.",
  data: "See what each filter dropped, and which documents the model read at a step.",
  trace: "Find where a passage is in the training text, and let the model recite.",
};

const overviewMount = (root, context) => {
  const report = document.querySelector(".kicker a")?.getAttribute("href");
  const link = (id, title) => h("a", { href: address(id), on: { click: (event) => { event.preventDefault(); context.show(id); } } }, title);
  root.append(
    h("ol", { class: "overview" }, pages.filter((page) => page.id in OVERVIEW_DO).map((page) => h("li", {}, link(page.id, page.title), h("span", {}, OVERVIEW_DO[page.id])))),
    h("p", {}, "New to language models? ", source.live ? h("a", { href: "/docs/tour.md" }, "The tour") : "The tour, docs/tour.md in Gristmill's repository,",
      " follows one document from the crawl to a sample and explains each page.", report ? [" ", h("a", { href: report }, "The report"), " has the figures of this run."] : ""),
    source.live ? "" : h("p", { class: "note" }, "Answers were recorded when the report was made. For any text of yours, run in the clone: ", h("code", {}, serveCommand())));
};

pages.push({
  id: "start", title: "Start",
  about: "Everything here is computed from one training run: its tokenizer, its model at each step, and the documents that it read. Start with Tokens, or open any page.",
  mount: overviewMount,
});

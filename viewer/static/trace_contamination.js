// Contamination by benchmark questions: the n-grams of each question that occur in the training text, and their documents.

const TRACE_QUESTIONS = 20; // to look up at once

// A question with its matches highlighted: {node, found, show}; `choose(number)` shows one.
const traceQuestion = (label, text, answer, choose) => {
  const { tokens, ngram, ngrams, found, parts } = answer;
  const spans = answer.spans.map((span) => ({ ...span, bits: 8 * (span.end - span.start) })); // longer ones are darker
  const length = Math.min(ngram, tokens);
  const box = tracePassage(label, parts.length ? parts : [{ text, spans: [] }], spans, 0, choose, (number) => `${plural(spans[number].end - spans[number].start, "token")} that occur in the training text; the first ${length}: ${plural(spans[number].count, "occurrence")}`);
  const summary = tokens < ngram
    ? `${plural(tokens, "token")}, searched as a whole: ${found ? "found" : "not found"}.`
    : `${whole(found)} of ${plural(ngrams, `${ngram}-gram`)} found (${percent(found / Math.max(1, ngrams))}).`;
  return { box, node: h("li", {}, box, note(summary)) };
};

// The evaluation sets that the run's config names; `look(texts, parameters)` is called with the selected examples.
const traceSets = (place, chosen, look) => context.run(place, async (signal) => {
  const { sets, left_out } = await source.ask("evaluation_sets", {}, signal);
  if (!sets.length) {
    place.replaceChildren(note("To choose from the run's evaluation sets, name their files in the config: documents.decontamination.sets or evaluate.tasks.data."), ...left_out.map((one) => note(plainText(one))));
    return;
  }
  const ask = (offset) => look(async (inner) => {
    const answer = await source.ask("evaluation_sets", { set: Number(select.value), offset }, inner);
    next = answer.next;
    more.hidden = next === null;
    return answer.examples.map((one) => ({ name: `Example ${whole(one.number + 1)} of ${plainText(answer.name)}`, texts: one.texts }));
  }, { set: sets[select.value].name, offset: offset || undefined });
  let next = null;
  const select = h("select", { id: "trace-set", on: { change: () => { more.hidden = true; } } }, sets.map((one) => h("option", { value: one.set, selected: one.name === chosen.set }, `${plainText(one.name)} (${one.option})`)));
  const more = h("button", { type: "button", hidden: true, on: { click: () => ask(next) } }, `Next ${TRACE_QUESTIONS}`);
  place.replaceChildren(
    h("div", { class: "trace-form" }, h("label", { for: "trace-set" }, "Or an evaluation set of the run"), select, h("button", { type: "button", on: { click: () => ask(0) } }, "Check its examples"), more),
    ...left_out.map((one) => note(plainText(one))));
  if (sets.some((one) => one.name === chosen.set)) ask(Math.max(0, Math.floor(Number(chosen.offset) || 0)));
});

const traceContamination = (about, parameters) => {
  const [status, list, side] = [h("p", { class: "note", role: "status" }), h("ol", { class: "trace-questions" }), h("div", { "aria-live": "polite" })];
  const place = h("div");
  const longest = Math.max(30, 2 * about.ngram);
  let ngram = source.live ? Math.min(longest, Math.max(2, Math.floor(Number(parameters.ngram) || about.ngram))) : about.ngram;
  let again = null;

  // `read(signal)` returns [{name, texts}]; of each, the text with the most matches is shown.
  const look = (read, kept) => {
    again = () => look(read, kept);
    if (source.live) {
      const { questions, ngram: _, set, offset, ...others } = pageParameters();
      const all = { ...others, ngram: ngram === about.ngram ? undefined : ngram, ...kept };
      history.replaceState(null, "", address("trace", Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))));
    }
    return context.run(place, async (signal) => {
      status.textContent = "Searching …";
      list.replaceChildren();
      place.replaceChildren(status, list);
      const questions = await read(signal);
      let [touched, ngrams, found, shown] = [0, 0, 0, null];
      for (const question of questions) {
        const [text, answer] = await traceMostFound(question.texts, ngram, signal);
        if (answer.problem) { list.append(h("li", {}, h("p", { class: "problem" }, answer.problem))); continue; }
        const choose = (number) => {
          if (shown && shown !== one.box) shown.show(-1);
          shown = one.box;
          one.box.show(number);
          one.node.append(side);
          const span = answer.spans[number];
          side.replaceChildren(...[h("h3", {}, `Its first ${plural(Math.min(ngram, answer.tokens), "token")}: ${plural(span.count, "occurrence")} in the training text`), traceDocuments(span.documents, span.count)].flat(2).filter(Boolean));
        };
        const one = traceQuestion(question.name, text, answer, choose);
        list.append(one.node);
        [ngrams, found] = [ngrams + answer.ngrams, found + answer.found];
        if (answer.found && touched++ === 0) choose(0);
      }
      status.textContent = `${whole(touched)} of ${plural(questions.length, "question")} overlap with the training text; ${whole(found)} of ${plural(ngrams, `${ngram}-gram`)} in total.`;
    });
  };
  const lookUp = (text) => {
    const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
    if (!lines.length) { context.cancel(place); place.replaceChildren(note("Enter a question.")); return undefined; }
    const left_out = lines.length - TRACE_QUESTIONS;
    const done = look(async () => lines.slice(0, TRACE_QUESTIONS).map((line, number) => ({ name: `Question ${number + 1}`, texts: [line] })), { questions: text.length <= MOST_IN_ADDRESS ? text : undefined });
    return left_out > 0 ? done.then(() => { status.textContent += ` Only the first ${TRACE_QUESTIONS} lines were checked; ${whole(left_out)} more were not.`; }) : done;
  };

  const field = h("textarea", { id: "trace-questions", rows: 4, maxlength: 20000, spellcheck: false, dir: "auto" });
  field.value = parameters.questions || "";
  const examples = Object.entries(about.examples).filter(([, text]) => source.has("contamination", { text, ngram: about.ngram })).map(([split, text]) => h("button", { type: "button", on: { click: () => { field.value = text; lookUp(text); } } }, `A line of the ${traceSplits[split] || split}`));
  const stop = () => { context.cancel(place); status.textContent = "Stopped."; };
  const sets = h("div");
  const runLength = slider("n-gram length", { min: 2, max: longest, value: ngram, on: settled((value) => { ngram = value; if (again) again(); }, 150) });
  const controls = source.live
    ? [h("form", { class: "trace-form", on: { submit: (event) => { event.preventDefault(); lookUp(field.value); } } },
        h("label", { for: "trace-questions" }, "Benchmark questions, one per line, with answers if available"), field, runLength,
        h("button", {}, "Check"), h("button", { type: "button", on: { click: stop } }, "Stop")),
      h("p", { class: "trace-form" }, h("span", { class: "note" }, "Examples:"), examples), sets]
    : examples.length
      ? [servedNote("Recorded examples."), h("p", { class: "trace-form" }, examples)]
      : servedNote("Not recorded.");
  if (source.live) {
    traceSets(sets, parameters, look);
    if (parameters.questions) lookUp(parameters.questions);
  }
  return traceSection("trace-contamination", "Contamination",
    h("p", {}, `A benchmark score says little if the model was trained on the questions. Here each ${about.ngram}-gram of a question that occurs verbatim in the training text is marked (GPT-3 used 13 words). A short match may be a common phrase; a fully marked question was very likely in the training data. Paraphrased questions are not found.`),
    controls, place);
};

// [text, answer] of the text with the most matches; a text that is rejected as too long has a problem.
const traceMostFound = async (texts, ngram, signal) => {
  let best = null;
  for (const text of texts) {
    let answer;
    try {
      answer = await source.ask("contamination", { text, ngram }, signal);
    } catch (error) {
      if (error.param !== "text") throw error;
      answer = { problem: error.message, ngrams: 0, found: 0 };
    }
    const share = (one) => one.found / Math.max(1, one.ngrams);
    if (!best || best[1].problem || (!answer.problem && share(answer) > share(best[1]))) best = [text, answer];
  }
  return best;
};

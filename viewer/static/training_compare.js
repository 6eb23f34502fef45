// Compare two steps or two runs: which tokens of the text each predicts better.

// Stretches of the text between common token boundaries: [{text, first: bits, second: bits}].
const trainingStretches = (text, first, second) => {
  const found = [];
  const bytes = (token) => token.bytes.length / 2;
  // The space that sentencepiece prepends is not part of the text.
  const blanks = (hex) => hex.match(/^(20)*/)[0].length / 2;
  const start = (tokens) => (blanks(tokens.map((token) => token.bytes).join("")) > text.match(/^ */)[0].length ? -1 : 0);
  let [i, j, a, b] = [0, 0, start(first), start(second)];
  let open = { text: "", first: 0, second: 0 };
  while (i < first.length || j < second.length) {
    if (i < first.length && (a <= b || j >= second.length)) {
      a += bytes(first[i]);
      open.text += first[i].text;
      open.first += first[i++].bits;
    } else {
      b += bytes(second[j]);
      open.second += second[j++].bits;
    }
    if (a === b && a > 0) {
      found.push(open);
      open = { text: "", first: 0, second: 0 };
    }
  }
  return found;
};

const TRAINING_DIFFERENCE = 8; // bits with the strongest color

const trainingCompare = (context, view, remembered) => {
  let runs = [];
  let steps = {};
  const answer = h("div", { class: "training-difference" });
  const readout = h("p", { class: "training-token note", "aria-live": "polite" });
  const run = h("select", { "aria-label": "Other run", on: { change: () => { view.run = run.value === context.model.name ? "" : run.value; view.other = ""; remembered(); fill(); show(); } } });
  const step = h("select", { "aria-label": "Other step", on: { change: () => { view.other = step.value; remembered(); show(); } } });
  const at = h("span");
  const few = h("p", { class: "note" });
  const sides = [0, 1].map(() => {
    const [title, bars] = [h("h3"), h("div", {})];
    const writes = h("blockquote", { class: "training-writes", dir: "auto", tabindex: "0", role: "group", "aria-label": "Continuation" });
    return { title, bars, writes, node: h("div", {}, title, bars, writes) };
  });
  const beside = h("div", { class: "split training-sides", hidden: true }, sides.map((one) => one.node));
  const node = h("div", { class: "training-compare panel", role: "region", "aria-label": "Compare" },
    h("h2", {}, "Compare"),
    note("Which tokens does another step, or another run, predict better than the step selected above?"),
    h("div", { class: "training-controls" }, h("label", {}, "Compare with ", run, at, step)), few, answer, readout, beside);

  const mine = () => context.shared.step ?? context.model.step;
  const otherRun = () => (runs.some((one) => one.name === view.run) ? view.run : context.model.name);
  const otherStep = () => {
    const known = steps[otherRun()] || [];
    if (known.includes(Number(view.other)) && view.other !== "") return Number(view.other);
    if (otherRun() !== context.model.name) return known.at(-1);
    return known.find((one) => one !== mine() && one === known.at(-1)) ?? known.find((one) => one !== mine());
  };
  const fill = () => {
    run.replaceChildren(...runs.map((one) => h("option", { value: one.name }, one.name)));
    run.value = otherRun();
    run.hidden = runs.length < 2;
    at.textContent = run.hidden ? "step " : " at step ";
    const chosen = otherStep();
    step.replaceChildren(...(steps[otherRun()] || []).map((one) => h("option", { value: one }, whole(one))));
    if (chosen !== undefined) step.value = String(chosen);
    few.textContent = runs.length < 2 && source.live ? `To compare with another run: ${serveCommand(" --beside OTHER_RUN")}` : "";
  };

  // Vocabulary of a run; null if the server does not have it.
  const vocabularyOf = async (name, signal) => {
    const own = await tokensLoad("", signal);
    const same = new Set([context.model.name, name].map((one) => runs.find((run) => run.name === one)?.tokenizer)).size === 1;
    return same ? own : own.others.includes(name) ? tokensLoad(name, signal) : null;
  };
  // Next tokens and continuations of both; delayed, so that the slider stays responsive.
  const showSides = settled((text, both) => node.isConnected && context.run(beside, async (signal) => {
    const answers = [];
    for (const { name, fields } of both) {
      answers.push([await trainingOptional("next", fields, signal), await trainingOptional("write", fields, signal), await vocabularyOf(name, signal)]);
    }
    answers.forEach(([next, write, vocabulary], i) => {
      const { title, bars, writes } = sides[i];
      title.textContent = trainingBegin(both[i].label);
      bars.hidden = !next;
      if (next) trainingDrawBars(bars, toArray(next.logits), vocabulary);
      writes.hidden = !write;
      if (write) trainingDrawWriting(writes, text, write);
    });
    beside.hidden = answers.every(([next, write]) => !next && !write);
  }), 250);

  const show = () => {
    const text = context.shared.text;
    const [a, b] = [mine(), otherStep()];
    const name = otherRun();
    const other = { text, step: b, ...(name === context.model.name ? {} : { run: name }) };
    beside.hidden = true;
    if (b === undefined) { answer.replaceChildren(h("p", { class: "note" }, "There is only one step.")); readout.replaceChildren(); return; }
    if (!text) { answer.replaceChildren(); readout.replaceChildren(); return; }
    if (!source.has("score", { text, step: a }) || !source.has("score", other)) {
      answer.replaceChildren(h("p", { class: "note" }, `Not recorded. Serve the run: ${serveCommand()}`));
      return;
    }
    const label = (which, at) => (which === context.model.name && name === context.model.name ? `step ${whole(at)}` : `${which} at step ${whole(at)}`);
    showSides(text, [{ name: context.model.name, fields: { text, step: a }, label: label(context.model.name, a) }, { name, fields: other, label: label(name, b) }]);
    context.run(answer, async (signal) => {
      const [first, second] = await Promise.all([{ text, step: a }, other].map((asked) => trainingAsk("score", asked, signal)));
      const stretches = trainingStretches(text, first.tokens, second.tokens);
      const [one, two] = [first.bits / first.bytes, second.bits / second.bytes];
      const say = (at) => {
        const here = stretches[at];
        readout.replaceChildren(...(here ? [h("b", {}, here.text), ` ${decimals(here.first)} bits for ${label(context.model.name, a)}, ${decimals(here.second)} for ${label(name, b)}: `, trainingSigned(here.second - here.first), " bits"] : ["Point at a token, or select it with the arrow keys."]));
      };
      const decorate = (span, here) => {
        const change = here.second - here.first;
        paint(span, Math.min(1, Math.abs(change) / TRAINING_DIFFERENCE), change > 0 ? heat : cool);
        span.dataset.bits = trainingSigned(change, 1);
      };
      answer.replaceChildren(
        h("p", { class: "training-sums" }, `${trainingBegin(label(context.model.name, a))}: `, h("b", {}, decimals(one)), ` bits per byte. ${trainingBegin(label(name, b))}: `, h("b", {}, decimals(two)), ". ", two < one ? `${percent(1 - two / one)} less.` : two > one ? `${percent(two / one - 1)} more.` : "Equal."),
        h("p", { class: "note training-legend" }, trainingSwatch(cool), ` ${trainingBegin(label(name, b))} is better (−) `, trainingSwatch(heat), " is worse (+); numbers are differences in bits"),
        h("div", { class: "training-strip training-numbers" }, tokenStrip("Difference in bits, token by token.", stretches, { decorate, choose: say })));
      say(-1);
    });
  };
  let before = "";
  const changedWords = () => JSON.stringify([context.shared.text, mine(), otherRun(), otherStep()]);
  const showChanged = () => {
    const now = changedWords();
    if (now !== before) show();
    before = now;
  };

  return {
    node,
    know(nowRuns, nowSteps) {
      const before = JSON.stringify([runs.map((one) => one.name), steps]);
      [runs, steps] = [nowRuns, nowSteps];
      if (before !== JSON.stringify([runs.map((one) => one.name), steps])) { fill(); showChanged(); }
    },
    update() { fill(); showChanged(); },
  };
};

const trainingBegin = (label) => label.replace(/^step /, "Step ");
const trainingSigned = (value, places = 2) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(places);
const trainingSwatch = (scale) => {
  const node = h("span", { class: "training-swatch", "aria-hidden": "true" });
  node.style.backgroundColor = scale(0.6);
  return node;
};

// One text, evaluated by every checkpoint and snapshot; a slider selects the step.

const TRAINING_KEPT = 600; // answers
const TRAINING_BARS = 8;

// Cache of answers, so that a step is shown again without delay.
const trainingAnswers = new Map();
const trainingAsk = async (name, fields, signal) => {
  const key = name + canonical(fields);
  if (trainingAnswers.has(key)) return trainingAnswers.get(key);
  const answer = await source.ask(name, fields, signal);
  trainingAnswers.set(key, answer);
  if (trainingAnswers.size > TRAINING_KEPT) trainingAnswers.delete(trainingAnswers.keys().next().value);
  return answer;
};

const trainingOptional = async (name, fields, signal) => (source.has(name, fields) ? trainingAsk(name, fields, signal) : null);

// The most likely tokens as bars; without a vocabulary, ids.
const trainingDrawBars = (place, logits, vocabulary) => {
  const shares = predictReshape(logits, PREDICT_PLAIN);
  put(place, tokenBars(Array.from(predictOrder(logits).subarray(0, TRAINING_BARS), (id) => [vocabulary ? tokensVisible(vocabulary.part(id)) : "token " + id, shares[id]])));
};

// Continuation: the end of the text, and the generated text.
const trainingDrawWriting = (quote, text, write) => quote.replaceChildren(h("span", { class: "training-prompt" }, text.slice(-200)), write.text);

// Initial texts: the run's prompts, and the finished model's continuation of the first.
const trainingTexts = (samples) => {
  const texts = [context.model.prompt, ...samples.final.map((one) => one.prompt)];
  for (const one of samples.final) texts.push(one.prompt + one.text);
  return [...new Set(texts)].filter((text) => text && source.has("score", { text, step: context.model.step })).slice(0, 8);
};

// `moved()` is called after each change of the step.
const trainingWatch = (context, moved) => {
  // An exported page has the answers of some steps.
  const held = (all) => (source.live ? all : all.filter((one) => source.has("score", { text: context.model.prompt, step: one })));
  let steps = held(context.model.steps);
  let samples = null;
  let sampledAt = "";
  const costs = new Map(); // text: Map(step: bits per byte)
  const index = () => {
    const step = context.shared.step ?? context.model.step;
    return Math.max(0, steps.findIndex((one) => one >= step));
  };
  const step = () => steps[index()];

  const strip = h("div", { class: "training-strip" });
  const readout = h("p", { class: "training-token note", "aria-live": "polite" });
  const sums = h("p", { class: "training-sums" });
  const bars = h("div", {});
  const barsTitle = h("h3", {}, "Next token");
  const writes = h("blockquote", { class: "training-writes", dir: "auto", tabindex: "0", role: "group", "aria-label": "Continuation" });
  const sample = h("div", { class: "training-sample" });
  const damage = h("p", { class: "problem", role: "alert", hidden: true });
  const place = h("div", { class: "training-answers" });
  const cost = lineChart("Bits per byte of this text", "by step", { choose: (x) => go(x) });
  const numbers = h("input", { type: "checkbox", on: { change: () => strip.classList.toggle("training-numbers", numbers.checked) } });

  const set = (next) => context.set({ step: next === context.model.step && next === steps.at(-1) ? null : next });
  const go = (wanted) => {
    const near = steps.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a));
    set(near);
  };
  const control = slider("Step", { min: 0, max: Math.max(0, steps.length - 1), value: index(), show: (i) => whole(steps[i] ?? 0), on: (i) => wanted(steps[i]) });
  const wanted = settled((value) => set(value), 40);
  const earlier = h("button", { type: "button", on: { click: () => set(steps[Math.max(0, index() - 1)]) } }, "Previous");
  const later = h("button", { type: "button", on: { click: () => set(steps[Math.min(steps.length - 1, index() + 1)]) } }, "Next");
  const all = h("button", { type: "button", "aria-pressed": "false", hidden: !source.live, on: { click: () => everyStep() } }, "Compute every step");

  const box = promptBox("Text", () => {});
  const choice = h("select", { "aria-label": "Example text", on: { change: () => { if (choice.value !== "") { box.field.value = choice.value; context.set({ text: choice.value }); } } } });
  box.hidden = !source.live;

  let asking = false;
  const everyStep = async () => {
    if (asking) {
      context.cancel(sums);
      return;
    }
    const say = (now) => { asking = now; all.textContent = now ? "Stop" : "Compute every step"; all.setAttribute("aria-pressed", String(now)); };
    say(true);
    await context.run(sums, async (signal) => {
      for (const one of steps) {
        await scoreOf(one, signal);
        drawCost();
      }
    });
    say(false);
  };

  const fields = (at) => ({ text: context.shared.text, step: at });
  const scoreOf = async (at, signal) => {
    const text = context.shared.text;
    const score = await trainingAsk("score", fields(at), signal);
    if (!costs.has(text)) costs.set(text, new Map());
    if (score.bytes) costs.get(text).set(at, score.bits / score.bytes);
    return score;
  };
  const drawCost = () => {
    const known = [...(costs.get(context.shared.text) || [])].sort((a, b) => a[0] - b[0]);
    cost.draw({ series: known.length > 1 ? [{ name: "bits per byte", colour: "var(--accent)", dash: "", dots: true, points: known }] : [], x: { name: "step", logarithmic: true }, y: { zero: true }, at: step(), chosen: context.shared.step !== null });
  };
  let ids = "";
  const drawStrip = (score) => {
    const now = score.tokens.map((token) => token.id).join(" ");
    const say = (at) => {
      const token = score.tokens[at];
      readout.replaceChildren(...(token ? [h("b", {}, token.text), ` ${decimals(token.bits)} bits, rank ${whole(token.rank)} of ${whole(context.model.vocab_size)}. Likeliest: `, ...token.top.slice(0, 3).flatMap(([, text, share], i) => [i ? ", " : "", h("span", { class: "training-quoted" }, text), " " + percent(share)])] : ["Point at a token, or select it with the arrow keys."]));
    };
    const decorate = (span, token) => { paint(span, surprise(token.bits)); span.dataset.bits = decimals(token.bits, 1); };
    if (now === ids && strip.firstChild) {
      for (const [i, span] of strip.querySelectorAll(".token").entries()) decorate(span, score.tokens[i]);
    } else {
      ids = now;
      strip.replaceChildren(tokenStrip("Tokens, colored by loss.", score.tokens, { decorate, choose: (at) => { chosen = at; speak(at); } }));
      chosen = -1;
    }
    speak = say;
    say(chosen);
  };
  let chosen = -1;
  let speak = () => {};
  const drawBars = (next, vocabulary) => {
    bars.hidden = barsTitle.hidden = !next;
    if (!next) return;
    trainingDrawBars(bars, toArray(next.logits), vocabulary);
  };
  const drawSample = () => {
    const taken = samples ? samples.during.filter((one) => one.step <= step()).at(-1) : null;
    sample.hidden = !samples || (!samples.during.length && !samples.final.length);
    if (sample.hidden) return;
    const cut = (one) => (one.characters > one.text.length ? ` … (${whole(one.characters)} characters in total)` : "");
    sample.replaceChildren(h("h3", {}, "Training sample"),
      taken ? h("p", { class: "note" }, `Step ${whole(taken.step)}, temperature ${taken.temperature}`) : h("p", { class: "note" }, `The first sample is from step ${whole(samples.during[0] ? samples.during[0].step : steps.at(-1))}.`),
      taken ? h("blockquote", { class: "text training-writes", dir: "auto", tabindex: "0", role: "group", "aria-label": "The sample" }, h("b", {}, taken.prompt), taken.text, cut(taken)) : "");
  };

  const show = () => {
    control.input.max = Math.max(0, steps.length - 1);
    control.set(index());
    earlier.disabled = index() === 0;
    later.disabled = index() === steps.length - 1;
    drawSample();
    drawCost();
    const at = step();
    if (!context.shared.text) { strip.replaceChildren(h("p", { class: "note" }, "Enter a text, or choose one.")); return; }
    if (!source.has("score", fields(at))) {
      strip.replaceChildren(h("p", { class: "note" }, `This text was not recorded. Choose another, or serve the run: ${serveCommand()}`));
      return;
    }
    // The server answers in order: request the generated text, which takes longest, last.
    const seen = context.run(place, async (signal) => {
      const asked = [scoreOf(at, signal), trainingOptional("next", fields(at), signal), source.has("vocabulary") ? tokensLoad("", signal) : null];
      const [score, next, vocabulary] = await Promise.all(asked);
      drawStrip(score);
      sums.replaceChildren(`At step ${whole(at)}: `, h("b", {}, decimals(score.bits, 1)), ` bits for ${plural(score.bytes, "byte")}, `, h("b", {}, decimals(score.bits / score.bytes)), " bits per byte; gzip needs ", decimals(score.gzip_bits_per_byte.at(-1)), "." + (score.dropped ? ` ${plural(score.dropped, "token")} beyond the context omitted.` : ""));
      drawCost();
      drawBars(next, vocabulary);
    });
    context.run(writes, async (signal) => {
      await seen;
      const write = await trainingOptional("write", fields(at), signal);
      writing.hidden = !write;
      if (write) trainingDrawWriting(writes, context.shared.text, write);
    });
  };
  const writing = h("div", {}, h("h3", {}, "Continuation"), note("48 tokens at temperature 0.8, with the same seed at every step."), writes);

  place.append(sums, strip, readout, h("label", { class: "training-check" }, numbers, " Show bits"),
    h("div", { class: "split" }, writing, h("div", {}, barsTitle, bars)), damage, sample);
  const node = h("div", { class: "training-watch panel", role: "region", "aria-label": "One text, step by step" },
    h("h2", {}, "One text, step by step"),
    note("The same text at every checkpoint and snapshot. The darker a token, the higher its loss."),
    box, choice, h("div", { class: "training-player" }, earlier, later, control, all), h("p", { class: "note training-few", hidden: true }), place, cost);

  return {
    node,
    go,
    // The existing steps, and those with a sample.
    know(all, sampled) {
      const now = held(all);
      if (now.join() !== steps.join()) {
        steps = now;
        show();
      }
      const few = node.querySelector(".training-few");
      few.hidden = steps.length > 3;
      few.textContent = "Few steps were kept. Snapshots keep the parameters of more: --train.snapshot-steps 0 1 2 4 8 16 32 64 128";
      if (sampled.join() === sampledAt && samples) return;
      sampledAt = sampled.join();
      context.run(sample, async (signal) => {
        samples = await source.ask("samples", {}, signal);
        damage.hidden = !samples.damaged.length;
        damage.textContent = samples.damaged.join(" ");
        const texts = trainingTexts(samples);
        choice.replaceChildren(h("option", { value: "" }, "Choose an example"), ...texts.map((text) => h("option", { value: text }, text.length > 70 ? text.slice(0, 70) + " …" : text)));
        choice.hidden = !texts.length;
        drawSample();
      });
      if (!strip.firstChild) show();
    },
    update(changed) {
      if (changed.includes("text") && !changed.includes("step")) context.cancel(sums);
      if (changed.includes("address") && box.field.value !== context.shared.text) box.field.value = context.shared.text;
      show();
      moved();
    },
    end() { cost.end(); },
  };
};

// The page "Predict": next tokens, their probabilities, and the loss of the text so far.

const PREDICT_WRITTEN = 64; // default number of tokens to generate
const PREDICT_NAMES = { temperature: "temperature", topK: "top_k", topP: "top_p", minP: "min_p" };

// Texts with recorded answers.
const predictRecorded = () => {
  const texts = Object.keys(recorded).filter((key) => key.startsWith("score{") || key.startsWith("next{")).map((key) => JSON.parse(key.slice(key.indexOf("{"))));
  return [...new Set(texts.filter(({ text, step }) => text !== undefined && step === undefined).map(({ text }) => text))];
};

const predictMount = (root, context, parameters) => {
  const settings = { ...PREDICT_PLAIN };
  for (const [name, short] of Object.entries(PREDICT_NAMES)) settings[name] = predictSetting(name, parameters[short]);
  let pending = []; // tokens after the text that end within a character
  let vocabulary = null;
  let score = null;
  let logits = null;
  const place = h("div", {});
  const remark = note();

  const fields = (more) => ({ ...more, step: shared.step ?? undefined });
  const remember = () => {
    const own = Object.entries(PREDICT_NAMES).filter(([name]) => settings[name] !== PREDICT_PLAIN[name]).map(([name, short]) => [short, settings[name]]);
    history.replaceState(null, "", address("predict", Object.fromEntries(own)));
  };
  const ids = () => score.tokens.map(({ id }) => id);
  const setText = (text, rest = []) => {
    pending = rest;
    if (field) field.value = text;
    context.set({ text });
    refresh();
  };
  const take = (more) => {
    const next = predictPlace(shared.text, [...pending, ...more], vocabulary.part);
    setText(next.text, next.pending);
  };
  const replace = (index, id) => {
    const next = predictPlace("", [...ids().slice(0, index), id], vocabulary.part);
    // sentencepiece prepends a space that is not part of the text
    const joined = score.tokens.map(({ bytes }) => bpeFromHex(bytes)).join("");
    const blank = joined.startsWith(" ") && bpeUtf8(bpeWhole(shared.text)).startsWith(joined.slice(1)) && !shared.text.startsWith(" ");
    setText(blank ? next.text.replace(/^ /, "") : next.text, next.pending);
  };

  const bars = predictBars((id) => take([id]));
  const tree = predictTree(async (path, signal) => toArray((await source.ask("next", fields({ tokens: [...ids(), ...pending, ...path] }), signal)).logits), take);
  const read = predictText(replace);
  const sliders = predictSliders(settings, () => {
    remember();
    if (!logits) return;
    bars.set(logits, vocabulary, settings);
    tree.reshape(settings);
  });
  const answers = h("div", {},
    h("div", { class: "split" },
      h("div", { class: "panel" }, h("h2", {}, "Next token"), bars),
      h("div", { class: "panel" }, h("h2", {}, "Sampling"), sliders)),
    h("div", { class: "panel" }, h("h2", {}, "Branches"), note(source.live ? "Open a token to see what could follow it. The probability of a path is the product of its tokens' probabilities." : "The likeliest tokens. In the served page, each opens to what could follow it."), tree),
    h("div", { class: "panel" }, h("h2", {}, "Loss per token"), note("The darker a token, the less the model expected it: its loss in bits is −log₂ of its probability, so a token of 10 bits had a probability of 1 in 1,024."), read));

  const refresh = () => context.run(place, async (signal) => {
    const text = shared.text;
    const other = shared.step !== null && shared.step !== context.model.step;
    write.disabled = other;
    elsewhere.hidden = !other;
    elsewhere.textContent = other ? `"Continue" uses the served model, of step ${whole(context.model.step)}; the rest of this page is for step ${whole(shared.step)}.` : "";
    vocabulary = await tokensLoad("", signal);
    const known = (name) => source.has(name, fields({ text }));
    const whichever = (name, given) => (known(name) ? source.ask(name, given, signal) : null);
    const [scored, next] = await Promise.all([whichever("score", fields({ text })), pending.length ? null : whichever("next", fields({ text }))]);
    if (!scored && !next) throw new NotRecorded("Nothing was recorded for this text at this step. Choose a recorded text, or serve the run.");
    score = scored || { tokens: [], bytes: 0, bits_per_byte: [], gzip_bits_per_byte: [], dropped: 0 };
    const behind = pending.length ? await source.ask("next", fields({ tokens: [...ids(), ...pending] }), signal) : next;
    logits = behind ? toArray(behind.logits) : null;
    remark.textContent = pending.length ? `The text continues with ${pending.map((id) => tokensVisible(vocabulary.part(id))).join("")}, an incomplete character.` : "";
    bars.hidden = tree.hidden = !logits;
    if (logits) {
      bars.set(logits, vocabulary, settings, true);
      tree.set(logits, vocabulary, settings);
    } else remark.textContent = "The next token was not recorded for this text, only its loss below.";
    read.set(score, vocabulary);
    place.replaceChildren(answers);
  });

  let field = null;
  const writing = h("p", { class: "predict-writing", role: "status", "aria-live": "polite" });
  const elsewhere = h("p", { class: "predict-elsewhere", hidden: true });
  const stop = h("button", { type: "button", disabled: true, on: { click: () => context.cancel(writing) } }, "Stop");
  const write = h("button", { type: "button", on: { click: () => generate() } }, "Continue");
  const length = slider("Tokens", { min: 1, max: Math.min(512, context.model.context_length), value: Math.min(PREDICT_WRITTEN, context.model.context_length), on: () => {} });
  const generate = async () => {
    const text = shared.text;
    let made = "";
    let reason = "stopped";
    write.disabled = field.readOnly = true;
    stop.disabled = false;
    stop.focus();
    writing.textContent = "…";
    await context.run(writing, async (signal) => {
      const prompt = pending.length ? [...ids(), ...pending] : text;
      const { temperature, topK, topP, minP } = settings;
      const asked = { prompt, max_tokens: Number(length.input.value), temperature, top_k: topK, top_p: topP, min_p: minP };
      for await (const choice of source.complete(asked, signal)) {
        made += choice.text;
        field.value = text + made;
        field.scrollTop = field.scrollHeight;
        if (choice.finish_reason) reason = choice.finish_reason === "stop" ? "the model ended the document" : "length limit";
      }
    });
    if (!root.isConnected) return;
    write.disabled = field.readOnly = false;
    if (document.activeElement === stop) write.focus();
    stop.disabled = true;
    const failed = writing.querySelector(".problem");
    if (!failed) writing.textContent = made ? `${plural([...made].length, "character")} generated (${reason}).` : `Nothing was generated (${reason}).`;
    if (made) setText(text + made);
  };

  if (source.live) {
    const box = promptBox("Text", () => { pending = []; refresh(); });
    field = box.field;
    root.append(box, h("div", { class: "predict-write" }, write, stop, length, elsewhere, writing), remark);
  } else {
    const texts = predictRecorded();
    if (!texts.includes(shared.text) && texts.length) shared.text = texts[0];
    const select = h("select", { id: "predict-recorded", on: { change: () => setText(texts[select.selectedIndex]) } }, texts.map((text) => h("option", { selected: text === shared.text }, text.length > 60 ? text.slice(0, 60) + "…" : text || "(the beginning of a document)")));
    root.append(h("div", { class: "prompt-box" }, h("label", { for: "predict-recorded" }, "Recorded text"), select), remark);
    if (!texts.length) {
      root.append(servedNote("No text was recorded."));
      return {};
    }
  }
  root.append(place);
  refresh();
  return {
    update(changed) {
      if (changed.includes("step") || (changed.includes("address") && field && field.value !== shared.text)) {
        pending = [];
        if (field) field.value = shared.text;
        refresh();
      }
    },
    unmount() { context.cancel(place); context.cancel(writing); },
  };
};

pages.push({
  id: "predict", title: "Predict",
  about: "A language model reads a text and predicts the probability of each token of its vocabulary to be the next one. Text is generated by sampling from these probabilities, token by token.",
  mount: predictMount,
});

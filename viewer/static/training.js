// The page Training: the curves of a run, live while it trains, and its checkpoints from the first step to the last.

const TRAINING_POLL = 3000; // ms between two requests while the run trains
const TRAINING_REST = 15000; // otherwise
const TRAINING_CURVES = [
  { title: "Learning rate", about: "", column: "learning_rate", zero: true },
  { title: "Tokens per second", about: "", column: "tokens_per_second", zero: true, smooth: true },
  { title: "MFU", line: "MFU", about: "model FLOPs as a fraction of the device's peak", column: "mfu", zero: true, smooth: true },
  { title: "FLOPs utilization (CPU)", line: "utilization", about: "model FLOPs as a fraction of the fastest matrix product measured on this machine", column: "cpu_matmul_share", zero: true, smooth: true },
  { title: "Gradient norm", about: "", column: "gradient_norm", smooth: true },
  { title: "Reward", about: "mean of the sampled answers", column: "reward", zero: true, smooth: true },
  { title: "Solved", about: "share of held-out questions", column: "validation_pass_at_1", of: "validation", zero: true },
];

// Append the columns of `next` to those of `known`; for a step in both, the later line counts.
const trainingJoined = (known, next) => {
  const joined = {};
  const keep = known.step.findIndex((step) => step >= (next.step[0] ?? Infinity));
  const length = keep < 0 ? known.step.length : keep;
  for (const name of new Set([...Object.keys(known), ...Object.keys(next)])) {
    const before = known[name] || new Array(known.step.length).fill(null);
    joined[name] = [...before.slice(0, length), ...(next[name] || new Array(next.step.length).fill(null))];
  }
  return joined;
};

// Exponential moving average like TensorBoard's, with bias correction at the start.
const trainingSmoothed = (points, weight) => {
  let sum = 0;
  let share = 0;
  return points.map(([x, y]) => {
    sum = weight * sum + (1 - weight) * y;
    share = weight * share + (1 - weight);
    return [x, sum / share];
  });
};

// Current state of a run, in a sentence.
const trainingState = (log) => {
  const { state, at, steps, seconds_since: since } = log;
  if (!log.train.step.length && !log.validation.step.length) {
    return state === "training" || state === "starting" ? "The run has started but not logged a step yet." : "There is no training log: the model was imported, or metrics.jsonl is missing. Predictions of its checkpoints are below.";
  }
  const left = log.train.seconds_left?.at(-1);
  if (state === "done") return `Finished: ${whole(at)} steps.`;
  if (state === "stopped") return `Stopped at step ${whole(at)} of ${whole(steps)}. The same command resumes it.`;
  if (state === "silent") return `No heartbeat for ${duration(since)}: training ended or hangs, at step ${whole(at)} of ${whole(steps)}.`;
  if (state === "") return `Logged up to step ${whole(log.last)} of ${whole(steps)}.`;
  if (state === "starting") return `Starting, with steps up to ${whole(log.last)} of ${whole(steps)} logged before.`;
  const doing = state === "training" ? "Training" : `Training (${state})`;
  return `${doing}: step ${whole(at)} of ${whole(steps)}` + (left > 0 ? `, about ${duration(left)} left.` : ".");
};

// Whether checkpoints can be asked: an exported page may have only the curves.
const TRAINING_ASKS = source.live || Object.keys(recorded).some((key) => key.startsWith("score"));

pages.push({
  id: "training",
  title: "Training",
  about: TRAINING_ASKS ? "Loss curves of the run, and the predictions of its checkpoints for one text." : "Curves of the run.",

  mount(root, context, parameters) {
    const view = {
      x: parameters.x === "tokens" ? "tokens" : "step",
      xlog: parameters.xlog === "1",
      ylog: parameters.ylog === "1",
      bits: parameters.bits === "1",
      smooth: Math.min(0.99, Math.max(0, Number(parameters.smooth ?? 0.6) || 0)),
      run: parameters.run || "",
      other: parameters.other || "",
    };
    const remembered = () => {
      const own = { ...pageParameters() };
      for (const name of ["x", "xlog", "ylog", "bits", "smooth", "run", "other"]) delete own[name];
      if (view.x !== "step") own.x = view.x;
      for (const name of ["xlog", "ylog", "bits"]) if (view[name]) own[name] = "1";
      if (view.smooth !== 0.6) own.smooth = view.smooth;
      if (view.run) own.run = view.run;
      if (view.other) own.other = view.other;
      history.replaceState(null, "", address("training", own));
    };
    const logs = new Map(); // by the run's name; the first is the served one
    let runs = [];
    let timer = 0;
    let gone = false;
    const control = new AbortController();

    const status = h("p", { class: "training-state", role: "status" });
    const trouble = h("p", { class: "problem", role: "alert", hidden: true });
    const damage = h("p", { class: "problem", role: "alert", hidden: true });
    const choose = (x) => {
      const log = logs.get(context.model.name);
      let step = x;
      if (view.x === "tokens" && log) step = log.train.step[nearestIndex(log.train.tokens.map((one) => [one]), x)] ?? x;
      if (TRAINING_ASKS) watch.go(step);
    };
    const loss = lineChart("Loss", "", { choose, large: true });
    const others = TRAINING_CURVES.map((one) => lineChart(one.title, one.about, { choose }));
    const say = h("p", { class: "note" });

    const toggle = (name, label) => {
      const button = h("button", { type: "button", "aria-pressed": String(view[name]), on: { click: () => {
        view[name] = !view[name];
        button.setAttribute("aria-pressed", String(view[name]));
        remembered();
        draw();
      } } }, label);
      return button;
    };
    const axis = h("select", { "aria-label": "X axis", on: { change: () => { view.x = axis.value; remembered(); draw(); } } },
      h("option", { value: "step" }, "Steps"), h("option", { value: "tokens" }, "Tokens"));
    axis.value = view.x;
    const ofLoss = [toggle("ylog", "Log loss"), toggle("bits", "Held-out bits per byte")];
    const controls = h("div", { class: "training-controls" },
      axis, toggle("xlog", "Log x axis"), ofLoss,
      slider("Smoothing", { min: 0, max: 0.99, step: 0.01, value: view.smooth, show: (value) => decimals(value), on: (value) => { view.smooth = value; remembered(); draw(); } }));

    const watch = trainingWatch(context, () => draw());
    const compare = trainingCompare(context, view, remembered);
    const curves = h("div", { class: "training-curves", role: "region", "aria-label": "Curves", hidden: true }, controls, say, loss, h("div", { class: "training-small" }, others));
    root.append(status, trouble, damage, curves, ...(TRAINING_ASKS ? [watch.node, compare.node] : []));

    const colours = ["var(--accent)", "var(--second)", "var(--muted)"];
    const points = (columns, column, log) => {
      const x = view.x === "tokens" ? columns.tokens || columns.step.map((step) => trainingTokens(log, step)) : columns.step;
      return x.map((value, i) => [value, columns[column] ? columns[column][i] : null]).filter((point) => point[0] !== null && point[1] !== null);
    };
    const x = () => ({ name: view.x === "tokens" ? "tokens" : "step", logarithmic: view.xlog });
    const at = () => {
      const step = context.shared.step ?? context.model.step;
      const log = logs.get(context.model.name);
      return view.x === "tokens" && log ? trainingTokens(log, step) : step;
    };
    const draw = () => {
      const many = logs.size > 1;
      const series = [];
      [...logs].forEach(([name, log], i) => {
        const label = (text) => (many ? `${name}, ${text}` : text);
        if (!view.bits) {
          const raw = points(log.train, "loss", log);
          series.push({ name: label("training"), colour: colours[i % 3], dash: "", points: view.smooth > 0 ? trainingSmoothed(raw, view.smooth) : raw, raw: view.smooth > 0 ? raw : null });
        }
        const column = view.bits ? "validation_bits_per_byte" : "validation_loss";
        series.push({ name: label("held out"), colour: many ? colours[i % 3] : colours[1], dash: "5 3", dots: true, points: points(log.validation, column, log) });
      });
      const chosen = context.shared.step !== null;
      loss.draw({ series, x: x(), y: { logarithmic: view.ylog }, at: at(), chosen });
      others.forEach((chart, number) => {
        const { column, of = "train", zero, smooth } = TRAINING_CURVES[number];
        const lines = [...logs].map(([name, log], i) => {
          const raw = points(log[of], column, log);
          const smoothed = smooth && view.smooth > 0;
          return { name: many ? name : TRAINING_CURVES[number].line || TRAINING_CURVES[number].title.toLowerCase(), colour: colours[i % 3], dash: i ? "5 3" : "", points: smoothed ? trainingSmoothed(raw, view.smooth) : raw, raw: smoothed ? raw : null };
        });
        chart.draw({ series: lines, x: x(), y: { zero }, at: at(), chosen });
      });
      const fingerprints = new Set(runs.map((one) => one.tokenizer));
      const every = Math.max(1, ...[...logs.values()].map((log) => log.every));
      const lossless = ![...logs.values()].some(({ train, validation }) => train.loss || validation.validation_loss); // reinforced
      for (const one of ofLoss) one.hidden = lossless;
      say.textContent = (lossless ? "" : view.bits ? "Bits per byte of held-out documents; comparable across tokenizers." : `Loss in nats per token (1 nat is 1.44 bits). Uniform predictions: ln(${whole(context.model.vocab_size)}) = ${decimals(Math.log(context.model.vocab_size))}.`)
        + (view.smooth > 0 && !view.bits ? ` Smoothed (exponential moving average, weight ${decimals(view.smooth)}); the faint line is as logged.` : "")
        + (every > 1 ? ` One of ${whole(every)} logged values is drawn.` : "")
        + (many && fingerprints.size > 1 && !view.bits ? " These runs have different tokenizers: compare bits per byte, not loss per token." : "");
    };

    const take = (name, answer, before) => {
      const reload = !before || answer.starts.length < before.starts.length || answer.last < before.last;
      if (before && !reload) {
        answer = { ...answer, every: before.every, train: trainingJoined(before.train, answer.train), validation: trainingJoined(before.validation, answer.validation) };
      }
      logs.set(name, answer);
      return reload && before;
    };
    const look = async () => {
      const names = runs.map((one) => one.name);
      for (const name of names) {
        const before = logs.get(name);
        const field = name === context.model.name ? {} : { run: name };
        const answer = await source.ask("curves", before && before.last >= 0 ? { ...field, after: before.last } : field, control.signal);
        // A run that resumed from an earlier step has other lines: reload all.
        const restarted = before && (answer.starts.length !== before.starts.length || answer.last < before.last);
        if (take(name, restarted ? await source.ask("curves", field, control.signal) : answer, restarted ? undefined : before)) logs.delete(name);
      }
      curves.hidden = ![...logs.values()].some((one) => one.train.step.length || one.validation.step.length);
      const log = logs.get(context.model.name);
      const text = trainingState(log);
      if (status.textContent !== text) status.textContent = text;
      const damaged = [...logs.values()].flatMap((one) => one.damaged).join(" ");
      damage.hidden = !damaged;
      if (damage.textContent !== damaged) damage.textContent = damaged;
      if (TRAINING_ASKS) {
        watch.know(log.checkpoints, log.samples);
        compare.know(runs, Object.fromEntries([...logs].map(([name, one]) => [name, one.checkpoints])));
      }
      draw();
      return [...logs.values()].some((one) => !["done", "stopped", "silent", ""].includes(one.state));
    };
    const again = (busy) => {
      if (gone || !source.live) return;
      timer = setTimeout(async () => {
        if (document.hidden) return again(busy);
        try {
          busy = await look();
          trouble.hidden = true;
        } catch (error) {
          if (gone || error.name === "AbortError") return;
          trouble.hidden = false;
          trouble.textContent = `The curves are not live: ${error.message} Retrying.`;
        }
        again(busy);
      }, busy ? TRAINING_POLL : TRAINING_REST);
    };
    context.run(status, async (signal) => {
      signal.addEventListener("abort", () => control.abort());
      runs = (await source.ask("runs", {}, signal)).runs;
      again(await look());
    });

    return {
      update(changed) {
        watch.update(changed);
        compare.update(changed);
        if (changed.includes("step") && logs.size) draw();
      },
      unmount() {
        gone = true;
        clearTimeout(timer);
        control.abort();
        watch.end();
        for (const chart of [loss, ...others]) chart.end();
      },
    };
  },
});

// Training tokens up to a step.
const trainingTokens = (log, step) => {
  // The batch size is constant between two lines; count from the previous line.
  const start = [...log.starts].reverse().find((one) => one.tokens_per_step && one.step <= step) || log.starts[0];
  if (!start?.tokens_per_step) return null;
  const lines = log.train.step || [];
  let last = lines.length - 1;
  while (last >= 0 && lines[last] > step) last -= 1;
  const [known, tokens] = last >= 0 && log.train.tokens?.[last] ? [lines[last], log.train.tokens[last]] : [0, 0];
  return tokens + (step - known) * start.tokens_per_step;
};

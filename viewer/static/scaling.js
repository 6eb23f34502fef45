// Page "Scaling": the runs of a ladder of small models, the law fitted to them, and the best N and D for a budget.

// loss = E + A / N^a + B / D^b, and its minimum for a budget of 6 N D FLOP.
const scalingLoss = (law, parameters, tokens) => law.E + law.A * parameters ** -law.a + law.B * tokens ** -law.b;
const scalingBest = (law, flops) => {
  const product = flops / 6;
  const parameters = ((law.a * law.A) / (law.b * law.B)) ** (1 / (law.a + law.b)) * product ** (law.b / (law.a + law.b));
  return scalingLoss(law, parameters, product / parameters);
};
const geometric = (low, high, count = 40) => Array.from({ length: count }, (_, i) => low * (high / low) ** (i / (count - 1)));
const scalingQuantile = (values, share) => [...values].sort((a, b) => a - b)[Math.round(share * (values.length - 1))];

const scalingMount = (root) => context.run(root, async (signal) => {
  const study = await source.ask("scaling", {}, signal);
  const { rungs, fit, budget } = study;
  const law = Object.fromEntries(Object.entries(fit).map(([name, found]) => [name, found.value]));
  const colour = (heldOut) => (heldOut ? "var(--accent)" : "var(--second)");
  const ends = (values, air) => [Math.min(...values) / air, Math.max(...values) * air];
  const interval = (found, show = shortNumber) => `${show(found.low)} to ${show(found.high)}`;
  const heldOut = rungs.filter((one) => one.held_out);
  const measuredLine = (name, points, held) => ({ name, colour: colour(held), scatter: true, points: points.sort((a, b) => a[0] - b[0]) });
  const measured = (x) => [measuredLine("fitted", rungs.filter((one) => !one.held_out).map((one) => [one[x], one.loss]), false), measuredLine("held out", heldOut.map((one) => [one[x], one.loss]), true)];

  const sizes = [...new Set(rungs.map((one) => one.parameters))].sort((a, b) => a - b);
  const tokens = geometric(...ends(rungs.map((one) => one.tokens), 1.15));
  const byTokens = lineChart("Loss by training tokens", "points are measured; curves are the fitted law, labeled with the number of parameters", { large: true, keyed: false });
  const flops = geometric(...ends([budget.flops, ...rungs.map((one) => one.flops)], 1.5));
  const byFlops = lineChart("Loss by compute", "the curve is the lowest loss of the law for each budget, with its 90 % interval", { large: true, keyed: false });
  const nats = (value) => decimals(value, 2);
  const largest = Math.max(...rungs.filter((one) => !one.held_out).map((one) => one.parameters));
  root.append(
    h("dl", { class: "figures" },
      reportFigure("budget, FLOP", budget.flops.toExponential(2).replace("+", ""), `${exactNumber(budget.times_the_largest_rung)} times the largest run`),
      reportFigure("parameters, N*", shortNumber(budget.parameters.value), interval(budget.parameters), true),
      reportFigure("tokens, D*", shortNumber(budget.tokens.value), interval(budget.tokens), true),
      reportFigure("loss, nats per token", nats(budget.loss.value), interval(budget.loss, nats))),
    h("p", {}, `${plural(rungs.length - heldOut.length, "small model")} fitted`, heldOut.length ? `; ${whole(heldOut.length)} held out, up to ${decimals(Math.max(...heldOut.map((one) => one.parameters)) / largest, 1)} times larger, predicted within ${decimals(100 * Math.max(...heldOut.map((one) => Math.abs(one.error))), 2)} %` : "", "."),
    ...study.remarks.map((one) => note(one)),
    h("h2", {}, "Losses"), byTokens,
    dataTable("", ["Run", "N", "D", "Learning rate", "Loss", "Law", "Error"], [
      ...rungs.map((one) => [one.name + (one.held_out ? " (held out)" : ""), whole(one.parameters), whole(one.tokens), exactNumber(one.learning_rate), decimals(one.loss, 4), decimals(one.predicted.value, 4), `${one.error < 0 ? "−" : "+"}${decimals(100 * Math.abs(one.error), 2)} %`]),
      ...study.failed.map((one) => [one.name, h("span", {}, `failed: ${plainText(one.why)}`), "", "", "", "", ""])]),
    h("h2", {}, "The law"),
    dataTable(study.law, ["Constant", "Fitted", "90 % interval"], Object.entries(fit).map(([name, found]) => [name, exactNumber(found.value), interval(found, exactNumber)])),
    note("Losses are nats per token of the same held-out text. N counts the parameters in matrix products, not embedding tables. Intervals are a bootstrap of the residuals: they include the noise of the measurements, not the error of the law itself."),
    h("h2", {}, "Compute"), byFlops, note("All figures are in scaling.json next to this page."));
  byTokens.draw({ x: { name: "tokens", logarithmic: true, shift: 0 }, series: [
    ...sizes.map((size) => ({ name: shortNumber(size), label: shortNumber(size), colour: colour(heldOut.some((one) => one.parameters === size)), points: tokens.map((one) => [one, scalingLoss(law, size, one)]) })), ...measured("tokens")] });
  const drawn = (one) => study.draws.map((draw) => scalingBest(draw, one));
  byFlops.draw({ x: { name: "FLOP", logarithmic: true, shift: 0 }, series: [
    { name: "lowest loss", colour: "var(--ink)", points: flops.map((one) => [one, scalingBest(law, one)]), band: flops.map((one) => [one, scalingQuantile(drawn(one), 0.05), scalingQuantile(drawn(one), 0.95)]) },
    ...measured("flops"), { name: "budget", colour: "var(--ink)", scatter: true, points: [[budget.flops, budget.loss.value]] }] });
});

pages.push({
  id: "scaling", title: "Scaling",
  about: "loss = E + A / N^a + B / D^b, fitted to small models, predicts the loss of a larger one with N parameters and D training tokens, and how to divide a compute budget between the two.",
  mount: scalingMount,
});

// Page "Tokens": bytes per token by language and kind of text, and the ends of the vocabulary.

const TOKENS_LISTED = 48; // first and last merges to list

const tokensList = (title, tokenizer, ids, counts) => (ids.length ? [h("h4", {}, title), h("ol", { class: "tokens-list" }, ids.map((id, i) => {
  const halves = tokenizer.vocabulary.merges ? bpeHalves(tokenizer.vocabulary, id) : null;
  const shown = (one) => tokensVisible(tokenizer.part(one)).replace(/(.)\1{7,}/gu, (run, character) => `${character}×${run.length}`);
  return h("li", { title: "token " + id }, (halves || [id]).map((one) => h("span", {}, shown(one))), counts ? h("em", {}, whole(counts[i])) : null);
}))] : null);

// Bytes per token of each sample, with a bar for each tokenizer; `relative`: also tokens relative to the first sample.
const tokensRates = (caption, samples, relative) => {
  const rate = (one, i) => (one.tokens[i] ? one.bytes / one.tokens[i] : 0);
  const most = Math.max(...samples.flatMap((one) => one.tokens.map((_, i) => rate(one, i))), 1e-9);
  const each = (one, show) => one.tokens.map((tokens, i) => h("span", { class: "tokens-each" }, tokens ? show(tokens, i) : "–"));
  const sorted = relative ? [...samples].sort((a, b) => (a.tokens[0] || Infinity) - (b.tokens[0] || Infinity)) : samples;
  return dataTable(caption, ["Text", "", "Bytes per token", "Tokens", ...(relative ? ["× English"] : [])], sorted.map((one) => [
    one.name, one.tokens.map((tokens, i) => h("span", { class: "tokens-each" + (i ? " second" : "") }, tokens ? shareBar(rate(one, i) / most) : "cannot be encoded")),
    each(one, (_, i) => decimals(rate(one, i))), each(one, whole), ...(relative ? [each(one, (tokens, i) => (samples[0].tokens[i] ? decimals(tokens / samples[0].tokens[i], 1) : "–"))] : [])]), { class: "tokens-rates" });
};

const tokensComparison = (place) => context.run(place, async (signal) => {
  if (!source.has("comparison")) return;
  const found = await source.ask("comparison", {}, signal);
  const names = found.tokenizers;
  const tokenizers = [];
  for (const [i, name] of names.entries()) tokenizers.push(await tokensLoad(i ? name : "", signal));
  const ends = (i) => {
    const [tokenizer, lists, corpus] = [tokenizers[i], found.lists[i], found.corpora[i]];
    const merged = tokenizer.vocabulary.regexp ? Array.from(tokenizer.vocabulary.parts.keys()).filter((id) => tokenizer.part(id).length > 1 && !tokenizer.vocabulary.special.has(id)) : [];
    return [
      names.length > 1 ? h("h3", {}, names[i]) : null,
      tokensList("First merges", tokenizer, merged.slice(0, TOKENS_LISTED)),
      tokensList("Last merges", tokenizer, merged.length > 2 * TOKENS_LISTED ? merged.slice(-TOKENS_LISTED) : []),
      tokensList("Longest tokens with a letter", tokenizer, lists.longest),
      tokensList("Longest tokens without a letter", tokenizer, lists.without_letters),
      corpus ? [
        tokensList(`Rarest tokens, with their number in ${plural(corpus.read, "document")}`, tokenizer, corpus.rarest.map(([id]) => id), corpus.rarest.map(([, count]) => count)),
        tokensList(`Unused tokens: ${whole(corpus.unused)} of ${whole(tokenizer.size)} (${percent(corpus.unused / tokenizer.size)})`, tokenizer, corpus.unused_examples),
        dataTable(`Documents by detected language: ${decimals(corpus.bytes / Math.max(1, corpus.tokens))} bytes per token in ${whole(corpus.read)} of ${plural(corpus.documents, "document")}, ${bytesText(corpus.bytes)}`, ["Language", "Documents", "Bytes per token"], corpus.by_language.map(([name, documents, rate]) => [plainText(name), whole(documents), decimals(rate)])),
      ] : null,
    ];
  };
  put(place,
    h("h2", {}, "Languages and kinds of text"),
    note("A vocabulary fits the texts that it was trained on; rare languages need more tokens for the same meaning. Bytes per token flatters scripts with two or three bytes per letter; tokens relative to English does not."),
    names.length > 1 ? h("p", { class: "data-key" }, names.map((name, i) => h("span", {}, h("i", { style: { background: i ? "var(--second)" : "var(--bar)" } }), name))) : null,
    tokensRates(`The same three sentences in ${plural(found.languages.length, "language")}`, found.languages, true),
    tokensRates("Kinds of text", found.kinds, false),
    h("h2", {}, "Vocabulary"),
    note("The first merges join what was most frequent in the training texts. The two tones of a token are the tokens that it was merged from."),
    names.map((_, i) => ends(i)),
    found.corpora.length ? null : note("The rarest and the unused tokens need the documents of a run."));
});

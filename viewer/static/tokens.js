// The page "Tokens": a text as tokens, optionally compared with a second tokenizer.

const TOKENS_IN_VIEW = 1500; // tokens to show at once
const TOKENS_IN_BOX = 50000; // characters: a browser takes seconds to break a line of 1 MB
const TOKENS_SHARED = 20000; // characters passed to the other pages
const TOKENS_WAYS = { text: "Text", ids: "Ids", bytes: "Bytes" };

const tokensHex = (bytes) => [...bytes].map((byte) => byte.charCodeAt(0).toString(16).padStart(2, "0")).join(" ");
const tokensBinary = (bytes) => [...bytes].map((byte) => byte.charCodeAt(0).toString(2).padStart(8, "0")).join(" ");

const tokensFigures = (cut, size) => {
  const pairs = [
    [whole(cut.ids.length), cut.ids.length === 1 ? "token" : "tokens"],
    [decimals(size.bytes / cut.ids.length), "bytes per token"],
    [whole(size.characters), size.characters === 1 ? "character" : "characters"],
    [whole(size.bytes), size.bytes === 1 ? "byte" : "bytes"],
  ];
  return h("dl", { class: "tokens-figures" }, pairs.map(([value, name]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
};

// Details of one token.
const tokensDetails = (cut, index, said) => {
  const { tokenizer, ids, starts } = cut;
  const id = ids[index];
  const bytes = tokenizer.part(id);
  const short = bytes.slice(0, 64);
  const more = bytes.length > short.length ? " …" : "";
  const row = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  const tree = tokensTree(tokenizer, id);
  const minted = tokenizer.vocabulary?.merges;
  const single = tokenizer.vocabulary?.order && bpeCharacters(tokenizer.vocabulary, bytes).length === 1;
  const byteId = tokenizer.kind === "bytes" || bytes.length === 1;
  said.replaceChildren(h("code", {}, tokensVisible(bytes)), ` token ${whole(index + 1)} of ${whole(ids.length)}, id `, h("b", {}, id));
  return [
    h("dl", { class: "tokens-facts" },
      row("bytes", `${whole(bytes.length)}, from byte ${whole(starts[index])} of the text`),
      row("hexadecimal", h("code", {}, tokensHex(short) + more)),
      row("binary", h("code", {}, tokensBinary(short) + more))),
    minted && h("div", { class: "tokens-tree" }, h("h3", {}, "Merged from"), tree || note(byteId || single ? `A single ${byteId ? "byte" : "character"}, not merged.` : "Not merged from other tokens: it was added to the vocabulary as a whole.")),
  ];
};

// One tokenizer's view of the text: figures, the tokens in view, a pager.
const tokensView = (look) => {
  const node = h("div", { class: "tokens-view" });
  let cut = null;
  let first = 0;
  let strip = null;
  let way = "text";
  const words = { text: (bytes) => tokensLines(tokensVisible(bytes)), ids: (_, id) => id + " ", bytes: (bytes) => tokensHex(bytes) + " " };

  const draw = (size, title) => {
    const { tokenizer, ids } = cut;
    first = Math.max(0, Math.min(first, Math.floor(Math.max(0, ids.length - 1) / TOKENS_IN_VIEW) * TOKENS_IN_VIEW));
    const shown = ids.slice(first, first + TOKENS_IN_VIEW).map((id) => ({ text: words[way](tokenizer.part(id), id) }));
    strip = tokenStrip(`${title}, ${plural(ids.length, "token")}.`, shown, { choose: (at) => { if (at >= 0) look(node, first + at); }, take: (at) => look(node, first + at, true) });
    strip.classList.add("way-" + way);
    const turn = (by) => { first += by; draw(size, title); look(node, first); node.querySelector(".tokens-pager button:not(:disabled)")?.focus(); };
    const pager = ids.length > TOKENS_IN_VIEW && h("p", { class: "tokens-pager" },
      h("button", { type: "button", disabled: first === 0, on: { click: () => turn(-TOKENS_IN_VIEW) } }, "Previous"),
      ` tokens ${whole(first + 1)} to ${whole(first + shown.length)} of ${whole(ids.length)} `,
      h("button", { type: "button", disabled: first + TOKENS_IN_VIEW >= ids.length, on: { click: () => turn(TOKENS_IN_VIEW) } }, "Next"));
    const note = tokenizer.sent && size.characters > TOKENS_MOST_SENT && h("p", { class: "note" }, `The server runs this tokenizer, on at most ${whole(TOKENS_MOST_SENT)} characters; the rest is omitted.`);
    node.replaceChildren(h("h2", {}, title), tokensFigures(cut, size), ids.length ? strip : h("p", { class: "note" }, "The text is empty: no tokens."), pager || "", note || "");
  };
  node.set = (next, size, title, shownAs) => { cut = next; way = shownAs; draw(size, title); };
  node.cut = () => cut;
  // Highlight the tokens that overlap the bytes from `start` to `end`.
  node.mark = (start, end) => {
    if (!cut || !strip) return;
    for (const one of strip.querySelectorAll(".there")) one.classList.remove("there");
    const spans = strip.children;
    for (let i = 0; i < spans.length; i++) {
      if (cut.starts[first + i] < end && cut.starts[first + i + 1] > start) spans[i].classList.add("there");
      else if (cut.starts[first + i] >= end) break;
    }
  };
  node.idsInView = () => cut.ids.slice(first, first + 4 * TOKENS_SENTENCE);
  return node;
};

const tokensMount = (root, context, parameters) => {
  let text = shared.text;
  let beside = parameters.beside ?? "";
  let way = Object.hasOwn(TOKENS_WAYS, parameters.way ?? "") ? parameters.way : "text";
  let step = /^\d+$/.test(parameters.merges ?? "") ? Number(parameters.merges) : undefined;
  const views = h("div", { class: "split tokens-views" });
  // Update one persistent node: screen readers announce changes in it, not its replacement.
  const said = h("p", { class: "tokens-chosen", role: "status" });
  const facts = h("div", {}, note("Point at a token, or select it with the arrow keys, to see its bytes and merges."));
  const details = h("div", { class: "panel tokens-details" }, said, facts);
  const keep = () => {
    const own = { way: way === "text" ? undefined : way, beside: beside || undefined, merges: step };
    history.replaceState(null, "", address("tokens", Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined))));
  };
  const comparison = h("div", { class: "tokens-comparison" });
  const story = tokensStory((at) => { step = at; keep(); });
  const look = (view, index) => {
    const cut = view.cut();
    if (index >= cut.ids.length) return;
    facts.replaceChildren(...tokensDetails(cut, index, said).filter(Boolean));
    for (const other of [left, right]) if (other !== view && other.isConnected) other.mark(cut.starts[index], cut.starts[index + 1]);
    if (index % TOKENS_IN_VIEW === 0 && index !== lookedAt && view === mergeView()) showMerges();
    lookedAt = index;
  };
  let lookedAt = 0;
  let first = true;
  const left = tokensView(look);
  const right = tokensView(look);

  // Show the merges of the run's tokenizer, or, if it has none, of the second one.
  const mergeView = () => ([left, right].find((view) => view.isConnected && view.cut().tokenizer.vocabulary?.merges) || left);
  const showMerges = () => story.set(mergeView().cut().tokenizer, mergeView().idsInView(), step);

  const refresh = () => context.run(views, async (signal) => {
    const own = await tokensLoad("", signal);
    const size = tokensSize(text);
    offer(own.others);
    const cut = await tokensCut(own, text, signal);
    const other = beside ? await tokensCut(await tokensLoad(beside, signal), text, signal) : null;
    left.set(cut, size, own.name, way);
    if (other) right.set(other, size, other.tokenizer.name, way);
    views.replaceChildren(left, ...(other ? [right] : []));
    showMerges();
    if (first) look(left, 0); // later the reader selects
    first = false;
  });

  const field = h("textarea", {
    id: "tokens-text", rows: 4, maxlength: TOKENS_IN_BOX, spellcheck: false, dir: "auto",
    on: {
      input: () => { context.cancel(views); typed(); }, // pending work is for the old text
      paste: (event) => {
        const pasted = event.clipboardData.getData("text/plain");
        const next = field.value.slice(0, field.selectionStart) + pasted + field.value.slice(field.selectionEnd);
        if (field.readOnly || next.length <= TOKENS_IN_BOX) return;
        event.preventDefault();
        changed(next);
      },
    },
  });
  const changed = (next) => { text = next; context.set({ text: text.slice(0, TOKENS_SHARED) }); step = undefined; keep(); write(); refresh(); };
  const typed = settled(() => changed(field.value), 60);
  // If a text is too long for the box, it shows the beginning, read-only.
  const long = h("p", { class: "note", hidden: true });
  const write = () => {
    field.readOnly = text.length > TOKENS_IN_BOX;
    long.hidden = !field.readOnly;
    if (field.readOnly) long.replaceChildren(`The text has ${plural(text.length, "character")}; the box shows the first ${whole(TOKENS_IN_BOX)}. `, h("button", { type: "button", on: { click: () => { changed(""); field.focus(); } } }, "Clear"));
    const shown = text.slice(0, TOKENS_IN_BOX);
    if (field.value !== shown) field.value = shown;
  };
  write();
  const select = h("select", { id: "tokens-beside", on: { change: () => { beside = select.value; keep(); refresh(); } } });
  const offer = (others) => {
    const names = ["", TOKENS_BYTES, TOKENS_CHARACTERS, ...others];
    if (select.options.length === names.length) return;
    if (!names.includes(beside)) beside = "";
    select.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === beside }, name || "none")));
  };
  const ways = h("div", { class: "tokens-ways", role: "group", "aria-label": "Show each token as" }, Object.entries(TOKENS_WAYS).map(([id, name]) => h("button", {
    type: "button", "aria-pressed": String(id === way), "data-way": id,
    on: { click: () => { way = id; for (const one of ways.children) one.setAttribute("aria-pressed", String(one.dataset.way === id)); keep(); refresh(); } },
  }, name)));
  root.append(
    h("div", { class: "prompt-box" }, h("label", { for: "tokens-text" }, "Text"), field, long),
    h("div", { class: "tokens-controls" }, ways, h("label", {}, "Compare with ", select)),
    views, details, story, comparison,
    note(source.live ? "To compare with another tokenizer, such as GPT-2's: " : "The tokenizer runs in this page. To compare it with others, serve the run: ", h("code", {}, serveCommand(" --beside gpt2"))),
  );
  refresh().then(() => tokensComparison(comparison));
  return {
    update(changed) {
      if (changed.includes("text") && shared.text !== text.slice(0, TOKENS_SHARED)) { text = shared.text; write(); refresh(); }
    },
    unmount() { context.cancel(views); context.cancel(comparison); },
  };
};

pages.push({
  id: "tokens", title: "Tokens",
  about: "A language model does not read letters. A tokenizer joins bytes that often occur together into tokens, and the model reads the numbers of the tokens. ␣ is a space, ⏎ a line break.",
  mount: tokensMount,
});

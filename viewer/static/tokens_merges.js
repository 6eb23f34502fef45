// Merges of a sentence, step by step: from bits to bytes to tokens, up to the position of the slider.

const TOKENS_SENTENCE = 300; // characters: the story's time grows with their square

// Merges of tokens, or of their text: {bytes, start, steps}, and `cut` if it is only the beginning.
const tokensTold = (tokenizer, ids) => {
  const { vocabulary } = tokenizer;
  const text = tokensDecode(ids.map((id) => tokenizer.part(id)).join(""));
  const part = [...bpeWhole(text)].slice(0, TOKENS_SENTENCE).join("");
  const cut = part.length < text.length;
  if (!vocabulary.order) return { ...bpeStory(vocabulary, part), bytes: bpeUtf8(part), cut };
  let end = 0;
  for (let length = 0; end < ids.length && length < bpeUtf8(part).length; end++) length += tokenizer.length(ids[end]);
  const some = ids.slice(0, end);
  const story = bpeStoryOf(vocabulary, some);
  return story && { ...story, bytes: some.map((id) => tokenizer.part(id)).join(""), cut };
};

// A node with `set(tokenizer, ids)`: a new story. `moved(step)` is called with the position of the slider.
const tokensStory = (moved) => {
  const cells = h("div", { class: "strip tokens-story", dir: "auto", tabindex: "0", role: "group", "aria-label": "The text at this step" });
  const caption = h("p", { class: "tokens-told", role: "status", "aria-live": "polite" });
  const place = h("div", {});
  const note = h("p", { class: "note" });
  const title = h("h2", { id: "tokens-story-title" });
  const node = h("div", { class: "panel", role: "region", "aria-labelledby": "tokens-story-title" }, title, note, place, caption, cells);
  let story = null;
  let vocabulary = null;
  let states = [];
  const shown = (id) => tokensVisible(vocabulary.parts[id]);

  // Steps before the first merge: bits, bytes, and with sentencepiece characters.
  const leading = () => (vocabulary.order ? 3 : 2);
  const show = (step) => {
    const size = story.bytes.length;
    if (step === 0) {
      cells.replaceChildren(...Array.from(story.bytes, (byte, i) => h("span", { class: "tokens-bits" + (i % 2 ? " odd" : "") }, byte.charCodeAt(0).toString(2).padStart(8, "0") + "\u200b")));
      caption.replaceChildren("A computer stores text as bits: ", h("b", {}, whole(8 * size)), " here.");
      return;
    }
    if (step === 1) {
      cells.replaceChildren(...Array.from(story.bytes, (byte, i) => h("span", { class: "token k" + (i % 4) }, tokensLines(tokensVisible(byte)))));
      caption.replaceChildren("Eight bits are a byte, one of 256 values: ", h("b", {}, plural(size, "byte")), " here, before any merge.");
      return;
    }
    const merge = step - leading() + 1;
    cells.replaceChildren(...states[merge].map(([id, created], i) => h("span", { class: created ? "token just-made" : "token k" + (i % 4) }, tokensLines(shown(id)))));
    if (merge === 0) {
      caption.replaceChildren("sentencepiece starts from characters, and from the bytes of unknown ones: ", h("b", {}, whole(story.start.length)), " here.");
      return;
    }
    const { rank, left, right, at } = story.steps[merge - 1];
    caption.replaceChildren(
      `Merge ${whole(merge)} of ${whole(story.steps.length)}: `, h("code", {}, shown(left)), " and ", h("code", {}, shown(right)), " become ", h("code", {}, shown(rank)),
      ", in " + plural(at.length, "place") + ". Its id is ", h("b", {}, whole(rank)), "; ", h("b", {}, plural(states[merge].length, "token")), " remain.",
    );
  };

  node.set = (tokenizer, ids, at) => {
    vocabulary = tokenizer.vocabulary;
    title.textContent = `Byte-pair merges of ${tokenizer.name}, step by step`;
    story = vocabulary?.merges ? tokensTold(tokenizer, ids) : null;
    if (!story) {
      note.textContent = `${tokenizer.name} has no byte-pair merges, or a split pattern that this page does not support.`;
      place.replaceChildren();
      caption.replaceChildren();
      cells.hidden = true;
      return;
    }
    states = [story.start.map((id) => [id, false])];
    for (const { rank, at } of story.steps) {
      const before = states[states.length - 1];
      const places = new Set(at);
      const after = [];
      for (let i = 0; i < before.length; i++) {
        if (places.has(i)) { after.push([rank, true]); i++; } else after.push([before[i][0], false]);
      }
      states.push(after);
    }
    const most = story.steps.length + leading() - 1;
    const now = Math.min(most, at ?? most);
    const control = slider("Merges", {
      min: 0, max: most, value: now, show: (step) => (step < leading() ? ["bits", "bytes", "characters"][step] : whole(step - leading() + 1)),
      on: (step) => { show(step); moved(step); },
    });
    cells.hidden = !story.start.length;
    note.textContent = "Training a tokenizer adds one token at a time: the most frequent pair of neighbors becomes one token. "
      + (vocabulary.order ? "A token's score is the order in which it was added. " : "A token's id is the order in which it was added. ")
      + (story.cut ? `These are the first ${TOKENS_SENTENCE} characters of the tokens in view.` : "");
    place.replaceChildren(control);
    show(now);
  };
  return node;
};

// Merge tree of a token: halves, recursively down to bytes. At most `room` of them.
const tokensTree = (tokenizer, id, room = { left: 48 }) => {
  const halves = tokenizer.vocabulary?.merges ? bpeHalves(tokenizer.vocabulary, id) : null;
  if (!halves || room.left < 2) return halves ? h("ul", {}, h("li", {}, "…")) : null;
  room.left -= 2;
  return h("ul", {}, halves.map((half) => h("li", {},
    h("code", {}, tokensVisible(tokenizer.part(half))), " ", h("span", { class: "note" }, whole(half)), tokensTree(tokenizer, half, room))));
};

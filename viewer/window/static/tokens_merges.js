// The merges of a sentence, minted one by one: from bits to bytes to tokens, as far as the slider says.

const TOKENS_SENTENCE = 300; // characters: the story's time grows with their square

// A node with `set(tokenizer, text)`: a new story. `moved(step)` is told where the slider stands.
const tokensStory = (moved) => {
  const cells = h("div", { class: "strip tokens-story", dir: "auto", tabindex: "0", role: "group", "aria-label": "The text at this step" });
  const told = h("p", { class: "tokens-told", role: "status", "aria-live": "polite" });
  const place = h("div", {});
  const note = h("p", { class: "note" });
  const title = h("h2", { id: "tokens-story-title" });
  const node = h("div", { class: "panel", role: "region", "aria-labelledby": "tokens-story-title" }, title, note, place, told, cells);
  let story = null;
  let vocabulary = null;
  let states = [];
  const shown = (id) => tokensVisible(vocabulary.parts[id]);

  const show = (step) => {
    if (step === 0) {
      cells.replaceChildren(...states[0].map(([id], i) => h("span", { class: "tokens-bits" + (i % 2 ? " odd" : "") }, vocabulary.parts[id].charCodeAt(0).toString(2).padStart(8, "0") + "\u200b")));
      told.replaceChildren("A computer stores text as bits, two symbols. Here are ", h("b", {}, whole(8 * story.start.length)), ".");
      return;
    }
    cells.replaceChildren(...states[step - 1].map(([id, minted], i) => h("span", { class: minted ? "token just-made" : "token k" + (i % 4) }, tokensLines(shown(id)))));
    if (step === 1) {
      told.replaceChildren("Eight bits are a byte, one of 256 symbols. Here are ", h("b", {}, whole(story.start.length)), "; nothing is merged yet.");
      return;
    }
    const { rank, left, right, at } = story.steps[step - 2];
    told.replaceChildren(
      `Merge ${whole(step - 1)} of ${whole(story.steps.length)}: `, h("code", {}, shown(left)), " and ", h("code", {}, shown(right)), " become ", h("code", {}, shown(rank)),
      ", in " + plural(at.length, "place") + ". It has rank ", h("b", {}, whole(rank)), ", and ", h("b", {}, plural(states[step - 1].length, "token")), " are left.",
    );
  };

  node.set = (tokenizer, text, at) => {
    vocabulary = tokenizer.vocabulary;
    title.textContent = `How the tokens of ${tokenizer.name} came about`;
    if (!vocabulary || !vocabulary.regexp) {
      note.textContent = `The tokenizer ${tokenizer.name} is not made of merges of bytes, or its split pattern is one that this page cannot read: there are none to show.`;
      place.replaceChildren();
      told.replaceChildren();
      cells.hidden = true;
      return;
    }
    const part = [...bpeWhole(text)].slice(0, TOKENS_SENTENCE).join("");
    story = bpeStory(vocabulary, part);
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
    const most = story.steps.length + 1;
    const now = Math.min(most, at ?? most);
    const control = slider("Merges", {
      min: 0, max: most, value: now, show: (step) => (step < 2 ? ["bits", "bytes"][step] : whole(step - 1)),
      on: (step) => { show(step); moved(step); },
    });
    cells.hidden = !story.start.length;
    note.textContent = "Training a tokenizer mints one token after another: the two neighbours that stood together most often become one. A token's id is its rank, the order in which it was minted. "
      + (part.length < text.length ? `Shown are the first ${TOKENS_SENTENCE} characters of the part in view.` : "");
    place.replaceChildren(control);
    show(now);
  };
  return node;
};

// How a token was merged: a list of halves, and halves of halves, down to bytes. At most `room` of them.
const tokensTree = (tokenizer, id, room = { left: 48 }) => {
  const halves = tokenizer.vocabulary && tokenizer.vocabulary.regexp ? bpeHalves(tokenizer.vocabulary, id) : null;
  if (!halves || room.left < 2) return halves ? h("ul", {}, h("li", {}, "…")) : null;
  room.left -= 2;
  return h("ul", {}, halves.map((half) => h("li", {},
    h("code", {}, tokensVisible(tokenizer.part(half))), " ", h("span", { class: "note" }, whole(half)), tokensTree(tokenizer, half, room))));
};

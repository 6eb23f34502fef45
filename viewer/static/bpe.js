// Byte-level BPE in the page: the same ids as lm.tokenizer's encode, without a server.
//
// Long work is a generator that yields periodically; `bpeFinish` runs it in short slices, so that the page stays responsive,
// and stops if its signal is aborted.

const BPE_NONE = 2 ** 31; // rank of a pair that is not a token
const BPE_SHORT = 96; // characters of a piece whose ids are cached
const BPE_LONGEST_RUN = 200000; // as in lm/tokenizer/encoding.py
const BPE_REMEMBERED = 50000; // pieces
const BPE_SLICE = 12; // ms

// Run `work`, a generator, and return its result. Throws AbortError if `signal` is aborted.
const bpeFinish = async (work, signal) => {
  let until = performance.now() + BPE_SLICE;
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
    if (performance.now() < until) continue;
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (signal?.aborted) throw new DOMException("stopped", "AbortError");
    until = performance.now() + BPE_SLICE;
  }
};

// Bytes are strings with one character below U+0100 per byte, so that they can be map keys.
const bpeFromHex = (hex) => {
  let bytes = "";
  for (let i = 0; i < hex.length; i += 2) bytes += String.fromCharCode(parseInt(hex.slice(i, i + 2), 16));
  return bytes;
};
const bpeWhole = (text) => text.replace(/\p{Surrogate}/gu, "\ufffd"); // only lone ones: with /u a pair is one character
const bpeUtf8 = (text) => {
  const bytes = new TextEncoder().encode(text);
  let out = "";
  for (let i = 0; i < bytes.length; i += 8192) out += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return out;
};

// Prepare the answer of "vocabulary". `regexp` is null if JavaScript does not support `pattern`.
const bpeVocabulary = (answer) => {
  const special = new Set(Object.values(answer.special));
  const parts = answer.bytes.map(bpeFromHex);
  const ranks = new Map();
  const single = new Int32Array(256).fill(-1);
  let longest = 0;
  parts.forEach((bytes, id) => {
    if (special.has(id) || !bytes) return;
    if (!ranks.has(bytes)) ranks.set(bytes, id);
    if (bytes.length === 1) single[bytes.charCodeAt(0)] = id;
    longest = Math.max(longest, bytes.length);
  });
  let regexp = null;
  if (answer.kind === "bpe") {
    try {
      regexp = bpeRegExp(answer.pattern);
    } catch {
      // the server encodes it
    }
  }
  const order = answer.order || null;
  return { kind: answer.kind, name: answer.name, special, parts, ranks, single, longest, regexp, order, merges: Boolean(regexp || order), pairs: new Map(), pieces: new Map() };
};

// Rank of a token: its id, except in sentencepiece's vocabularies, which have a separate order.
const bpeOrder = (vocabulary, id) => {
  if (id === BPE_NONE || !vocabulary.order) return id;
  return vocabulary.order[id] < 0 ? BPE_NONE : vocabulary.order[id];
};

// Id of the token of two neighbors; BPE_NONE if there is none.
const bpeJoin = (vocabulary, left, right) => {
  const key = left * 2097152 + right; // ids are below 2 ** 21
  let found = vocabulary.pairs.get(key);
  if (found === undefined) {
    const bytes = vocabulary.parts[left] + vocabulary.parts[right];
    found = bytes.length > vocabulary.longest ? BPE_NONE : vocabulary.ranks.get(bytes) ?? BPE_NONE;
    if (vocabulary.pairs.size > 500000) vocabulary.pairs.clear();
    vocabulary.pairs.set(key, found);
  }
  return found;
};

const bpeSingles = (vocabulary, bytes) => Array.from(bytes, (byte) => vocabulary.single[byte.charCodeAt(0)]);

// Initial ids of sentencepiece: characters, or the bytes of those that are not tokens.
const bpeCharacters = (vocabulary, bytes) => {
  const ids = [];
  for (let i = 0; i < bytes.length;) {
    const first = bytes.charCodeAt(i);
    const one = bytes.slice(i, i + (first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4));
    const id = one.length > 1 ? vocabulary.ranks.get(one) : undefined;
    ids.push(...(id === undefined ? bpeSingles(vocabulary, one) : [id]));
    i += one.length;
  }
  return ids;
};
const bpeStart = (vocabulary, bytes) => (vocabulary.order ? bpeCharacters : bpeSingles)(vocabulary, bytes);

// Min-heap of numbers in a preallocated array.
const bpeHeap = (room) => {
  const heap = new Float64Array(room);
  let size = 0;
  const push = (key) => {
    let i = size++;
    while (i > 0) {
      const up = (i - 1) >> 1;
      if (heap[up] <= key) break;
      heap[i] = heap[up];
      i = up;
    }
    heap[i] = key;
  };
  const pop = () => {
    if (!size) return -1;
    const least = heap[0];
    const key = heap[--size];
    let i = 0;
    for (;;) {
      let down = 2 * i + 1;
      if (down >= size) break;
      if (down + 1 < size && heap[down + 1] < heap[down]) down++;
      if (heap[down] >= key) break;
      heap[i] = heap[down];
      i = down;
    }
    heap[i] = key;
    return least;
  };
  return { push, pop };
};

// Merge the pair of the lowest rank, leftmost first, until no pair is a token, in O(n log n): pairs are in a heap by rank
// and position; outdated ones are skipped.
const bpeMerge = function* (vocabulary, bytes) {
  yield;
  const ids = Int32Array.from(bpeSingles(vocabulary, bytes));
  yield;
  const count = ids.length;
  const next = new Int32Array(count).map((_, i) => i + 1);
  const before = new Int32Array(count).map((_, i) => i - 1);
  const joined = new Float64Array(count).fill(BPE_NONE); // merge of the part that begins here with the next one
  const heap = bpeHeap(3 * count);
  const look = (at) => {
    joined[at] = next[at] < count ? bpeJoin(vocabulary, ids[at], ids[next[at]]) : BPE_NONE;
    if (joined[at] < BPE_NONE) heap.push(joined[at] * 2 ** 31 + at);
  };
  for (let i = 0; i < count; i++) {
    look(i);
    if (i % 1024 === 1023) yield;
  }
  for (let turn = 1; ; turn++) {
    if (turn % 1024 === 0) yield;
    const key = heap.pop();
    if (key < 0) break;
    const rank = Math.floor(key / 2 ** 31);
    const at = key - rank * 2 ** 31;
    if (joined[at] !== rank) continue;
    const gone = next[at];
    ids[at] = rank;
    next[at] = next[gone];
    joined[gone] = BPE_NONE;
    if (next[at] < count) before[next[at]] = at;
    look(at);
    if (before[at] >= 0) look(before[at]);
  }
  const out = [];
  for (let i = 0; i < count; i = next[i]) out.push(ids[i]);
  return out;
};

// Split the text inside long runs of white space, like lm/tokenizer/encoding.py.
const bpeSections = function* (text) {
  let start = 0;
  if (text.length > BPE_LONGEST_RUN) {
    // Python's \s, which includes U+001C to U+001F besides Unicode's.
    for (const run of text.matchAll(/[\p{White_Space}\x1c-\x1f]+/gu)) {
      for (let cut = run.index + BPE_LONGEST_RUN; cut < run.index + run[0].length; cut += BPE_LONGEST_RUN) {
        yield text.slice(start, cut);
        start = cut;
      }
    }
  }
  yield text.slice(start);
};

// Pieces of the split pattern. Throws if it skips some of the text.
const bpePieces = function* (vocabulary, text) {
  for (const section of bpeSections(bpeWhole(text))) {
    let end = 0;
    for (const found of section.matchAll(vocabulary.regexp)) {
      if (found.index !== end) break;
      end += found[0].length;
      if (found[0]) yield found[0];
    }
    if (end < section.length) throw new Error(`The split pattern does not match a part of the text that begins with ${JSON.stringify(section.slice(end, end + 20))}.`);
  }
};

// The ids of a text.
const bpeEncode = function* (vocabulary, text) {
  const out = [];
  let turn = 0;
  for (const piece of bpePieces(vocabulary, text)) {
    if (++turn % 256 === 0) yield;
    const short = piece.length <= BPE_SHORT;
    let ids = short ? vocabulary.pieces.get(piece) : undefined;
    if (ids === undefined) {
      if (!short) yield;
      const bytes = bpeUtf8(piece);
      const whole = bytes.length <= vocabulary.longest ? vocabulary.ranks.get(bytes) : undefined; // a piece that is a token becomes that token, even if no merges lead to it
      if (whole !== undefined) ids = [whole];
      else ids = yield* bpeMerge(vocabulary, bytes);
      if (vocabulary.pieces.size > BPE_REMEMBERED) vocabulary.pieces.clear();
      if (short) vocabulary.pieces.set(piece, ids);
    }
    for (let i = 0; i < ids.length; i++) out.push(ids[i]);
  }
  return out;
};

// The two tokens that a token was merged from, like lm.tokenizer's merged_from; null for initial tokens, and for tokens
// of published vocabularies that no merges lead to.
const bpeHalves = (vocabulary, id) => {
  const ids = bpeStart(vocabulary, vocabulary.parts[id]);
  if (ids.length < 2 || vocabulary.special.has(id)) return null;
  while (ids.length > 2) {
    let best = BPE_NONE;
    let at = 0;
    for (let i = 0; i + 1 < ids.length; i++) {
      const order = bpeOrder(vocabulary, bpeJoin(vocabulary, ids[i], ids[i + 1]));
      if (order < best) { best = order; at = i; }
    }
    if (best >= bpeOrder(vocabulary, id)) return null;
    ids.splice(at, 2, bpeJoin(vocabulary, ids[at], ids[at + 1]));
  }
  return ids;
};

// Merges of a text from its bytes, with a split pattern: {start, steps}, see bpeMerges.
const bpeStory = (vocabulary, text) => bpeMerges(vocabulary, [...bpePieces(vocabulary, text)].map((piece) => bpeSingles(vocabulary, bpeUtf8(piece))));

// The same for tokens of sentencepiece, from characters; null if no merges lead to these tokens.
const bpeStoryOf = (vocabulary, ids) => {
  const story = bpeMerges(vocabulary, [bpeCharacters(vocabulary, ids.map((id) => vocabulary.parts[id]).join(""))]);
  const end = story.steps.length ? story.steps[story.steps.length - 1].ids : story.start;
  return end.length === ids.length && end.every((id, i) => id === ids[i]) ? story : null;
};

// Merges that shorten pieces, in order of rank: [{rank, left, right, at, ids}], `rank` is the
// resulting token, `at` the indices of the left halves in the previous ids, `ids` the ids after it. Takes quadratic
// time.
const bpeMerges = (vocabulary, pieces) => {
  const start = pieces.flat();
  const steps = [];
  for (;;) {
    let first = BPE_NONE;
    let halves = null;
    for (const piece of pieces) {
      for (let i = 0; i + 1 < piece.length; i++) {
        const order = bpeOrder(vocabulary, bpeJoin(vocabulary, piece[i], piece[i + 1]));
        if (order < first) { first = order; halves = [piece[i], piece[i + 1]]; }
      }
    }
    if (!halves) return { start, steps };
    const best = bpeJoin(vocabulary, ...halves);
    const at = [];
    let before = 0;
    pieces = pieces.map((piece) => {
      const after = [];
      for (let i = 0; i < piece.length; i++) {
        if (i + 1 < piece.length && bpeJoin(vocabulary, piece[i], piece[i + 1]) === best) {
          at.push(before + i);
          after.push(best);
          i++;
        } else after.push(piece[i]);
      }
      before += piece.length;
      return after;
    });
    steps.push({ rank: best, left: halves[0], right: halves[1], at, ids: pieces.flat() });
  }
};

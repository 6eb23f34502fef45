// Encode texts with any tokenizer, and show tokens with invisible characters made visible.

// Like `visible` in viewer/training_data.py: symbols for white space, \xNN for half a character, escapes for invisible ones.
const TOKENS_SIGNS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };
const tokensEscape = (character) => {
  if (TOKENS_SIGNS[character]) return TOKENS_SIGNS[character];
  const point = character.codePointAt(0);
  if (point < 0x80 ? point >= 0x20 && point < 0x7f : !/[\p{C}\p{Z}]/u.test(character)) return character;
  return "\\u" + point.toString(16).padStart(4, "0");
};
const tokensByte = (byte) => "\\x" + byte.toString(16).padStart(2, "0");

// For bytes in the format of bpe.js. Invalid UTF-8 is found character by character, like Python's decoder.
const tokensVisible = (bytes) => {
  let out = "";
  for (let i = 0; i < bytes.length;) {
    const first = bytes.charCodeAt(i);
    const length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    let character = null;
    try {
      if (length) character = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(tokensArray(bytes.slice(i, i + length)));
    } catch {
      // half a character
    }
    out += character === null ? tokensByte(first) : tokensEscape(character);
    i += character === null ? 1 : length;
  }
  return out;
};
const tokensArray = (bytes) => Uint8Array.from(bytes, (character) => character.charCodeAt(0));
const tokensDecode = (bytes) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(tokensArray(bytes));

// A symbol for a line break, followed by the line break.
const tokensLines = (shown) => shown.replace(/⏎/g, "⏎\n");

const TOKENS_BYTES = "bytes";
const TOKENS_CHARACTERS = "characters";
const TOKENS_MOST_SENT = 20000; // characters: "encode" takes no more

// Tokenizers without a vocabulary: bytes and characters, the two extremes.
const tokensSimple = {
  [TOKENS_BYTES]: {
    kind: "bytes", name: "bytes",
    *encode(text) {
      const bytes = new TextEncoder().encode(bpeWhole(text));
      yield;
      return Array.from(bytes);
    },
    part: (id) => String.fromCharCode(id),
    length: () => 1,
  },
  [TOKENS_CHARACTERS]: {
    kind: "points", name: "characters",
    *encode(text) {
      const out = [];
      for (const character of bpeWhole(text)) {
        out.push(character.codePointAt(0));
        if (out.length % 4096 === 0) yield;
      }
      return out;
    },
    part: (id) => bpeUtf8(String.fromCodePoint(id)),
    length: (id) => (id < 0x80 ? 1 : id < 0x800 ? 2 : id < 0x10000 ? 3 : 4),
  },
};

const tokensOfCharacters = function* (vocabulary, text) {
  const out = [];
  for (const character of bpeWhole(text)) {
    const id = vocabulary.ranks.get(bpeUtf8(character));
    if (id === undefined) throw new Error(`The character ${JSON.stringify(character)} is none of the ${whole(vocabulary.parts.length)} of this vocabulary. Leave it out of the text.`);
    out.push(id);
    if (out.length % 4096 === 0) yield;
  }
  return out;
};

const tokensKnown = new Map();

// {name, kind, part(id), cut(text, signal)} of a tokenizer by name; "" is the run's own.
const tokensLoad = async (name, signal) => {
  const known = tokensKnown.get(name);
  if (known) return known;
  const simple = Object.hasOwn(tokensSimple, name) && tokensSimple[name];
  let found;
  if (simple) found = { ...simple, cut: (text, signal) => bpeFinish(simple.encode(text), signal) };
  else {
    const answer = await source.ask("vocabulary", name ? { tokenizer: name } : {}, signal);
    const vocabulary = bpeVocabulary(answer);
    const here = vocabulary.regexp ? bpeEncode : answer.kind === "characters" ? tokensOfCharacters : null;
    const send = async (text, signal) => {
      const cut = bpeWhole(text.slice(0, TOKENS_MOST_SENT));
      return [...toArray((await source.ask("encode", name ? { text: cut, tokenizer: name } : { text: cut }, signal)).ids)];
    };
    found = {
      name: answer.name, kind: answer.kind, vocabulary, others: answer.others || [], sent: !here, size: answer.bytes.length,
      special: vocabulary.special, part: (id) => vocabulary.parts[id], length: (id) => vocabulary.parts[id].length,
      cut: here ? (text, signal) => bpeFinish(here(vocabulary, text), signal) : send,
    };
  }
  tokensKnown.set(name, found);
  return found;
};

// An encoded text: {tokenizer, ids, starts}; `starts` are the bytes before each token, and in total.
const tokensCut = async (tokenizer, text, signal) => {
  const ids = await tokenizer.cut(text, signal);
  const starts = new Float64Array(ids.length + 1);
  for (let i = 0; i < ids.length; i++) starts[i + 1] = starts[i] + tokenizer.length(ids[i]);
  return { tokenizer, ids, starts };
};

// {characters, bytes} of a text: code points, and their UTF-8.
const tokensSize = (text) => {
  let characters = text.length;
  let bytes = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    const pair = unit >= 0xd800 && unit < 0xdc00 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00;
    bytes += unit < 0x80 ? 1 : unit < 0x800 ? 2 : pair ? 4 : 3;
    if (pair) { characters--; i++; }
  }
  return { characters, bytes };
};

// Translate the split pattern of a tokenizer from Rust's syntax (fancy-regex) to JavaScript's.

// Differences, and why no match changes:
// - \s is Unicode's White_Space in Rust; JavaScript's \s has U+FEFF too, and lacks U+0085.
// - (?i:...) becomes a set of all letters that fold to the same one: in ASCII these are both cases, and for s and k also
//   U+017F and U+212A.
// - X++ and (?>X), which do not backtrack, become (?=(X+))\1: a look-ahead is never entered
//   again once it has matched, and \1 takes exactly what it found.
// - groups do not capture; \d and \w are Unicode's, and . matches all except the newline, as in Rust.
// Anything else that may be interpreted differently is rejected; the server then encodes the text.

const BPE_FOLDS = { s: "\u017f", k: "\u212a" };
const BPE_ESCAPES = {
  s: "\\p{White_Space}", S: "\\P{White_Space}", d: "\\p{Nd}", D: "\\P{Nd}", r: "\\r", n: "\\n", t: "\\t", f: "\\f", v: "\\v",
};
const BPE_GROUPS = ["(?:", "(?=", "(?!", "(?<=", "(?<!"];

class BpePattern {
  constructor(pattern) {
    this.pattern = pattern;
    this.at = 0;
    this.atoms = 0;
  }

  refuse() {
    throw new Error(`The split pattern is not read alike by JavaScript, from character ${this.at + 1}: ${this.pattern}`);
  }

  translated() {
    const found = this.alternatives(false);
    if (this.at < this.pattern.length) this.refuse();
    return found;
  }

  eat(start) {
    if (!this.pattern.startsWith(start, this.at)) return false;
    this.at += start.length;
    return true;
  }

  alternatives(folds) {
    let out = "";
    while (this.at < this.pattern.length && this.pattern[this.at] !== ")") {
      out += this.eat("|") ? "|" : this.repeated(folds);
    }
    return out;
  }

  repeated(folds) {
    const atom = this.atom(folds);
    const found = /^(?:[*+?]|\{\d+(?:,\d*)?\})/.exec(this.pattern.slice(this.at));
    if (!found) return atom;
    this.at += found[0].length;
    if (this.eat("+")) return this.atomic(atom + found[0]);
    return atom + found[0] + (this.eat("?") ? "?" : "");
  }

  atomic(inner) {
    const name = "a" + this.atoms++;
    return `(?:(?=(?<${name}>${inner}))\\k<${name}>)`;
  }

  atom(folds) {
    if (this.pattern[this.at] === "(") return this.group(folds);
    if (this.eat("[")) return this.set(folds);
    if (this.eat("\\")) return this.escape();
    if (this.eat(".")) return "[^\\n]";
    if (this.eat("^")) return "^";
    if (this.eat("$")) return "$";
    return this.letter(folds);
  }

  group(folds) {
    let start = "(?:";
    let atomic = false;
    if (this.eat("(?i:")) folds = true;
    else if (this.eat("(?>")) atomic = true;
    else {
      const known = BPE_GROUPS.find((one) => this.eat(one));
      if (known) start = known;
      else if (!this.eat("(") || this.pattern[this.at] === "?") this.refuse();
    }
    const inner = this.alternatives(folds);
    if (!this.eat(")")) this.refuse();
    return atomic ? this.atomic(inner) : start + inner + ")";
  }

  set(folds) {
    let out = this.eat("^") ? "[^" : "[";
    while (!this.eat("]")) {
      if (this.at >= this.pattern.length || this.pattern[this.at] === "[" || this.pattern.startsWith("&&", this.at)) this.refuse();
      if (folds) this.refuse();
      out += this.eat("\\") ? this.escape() : this.eat("-") ? (/\[\^?$/.test(out) || this.pattern[this.at] === "]" ? "\\-" : "-") : this.letter(false);
    }
    return out + "]";
  }

  escape() {
    const property = /^([pP])(?:\{(\^?)(\w+)\}|([LNMPSZC]))/.exec(this.pattern.slice(this.at));
    if (property) {
      const [whole, letter, negated, name, short] = property;
      this.at += whole.length;
      const positive = (letter === "p") !== (negated === "^");
      return `\\${positive ? "p" : "P"}{${name || short}}`;
    }
    const character = this.pattern[this.at];
    if (character === undefined) this.refuse();
    if (BPE_ESCAPES[character]) {
      this.at++;
      return BPE_ESCAPES[character];
    }
    if (/\w/.test(character)) this.refuse();
    return this.letter(false);
  }

  letter(folds) {
    const character = String.fromCodePoint(this.pattern.codePointAt(this.at));
    this.at += character.length;
    if (folds && character > "\x7f") this.refuse();
    if (folds && /[a-z]/i.test(character)) {
      const lower = character.toLowerCase();
      return `[${lower}${lower.toUpperCase()}${BPE_FOLDS[lower] || ""}]`;
    }
    return /[\^$\\.*+?()[\]{}|/-]/.test(character) ? "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0") : character;
  }
}

// A RegExp that finds the same pieces in sequence. Throws if the pattern cannot be translated.
const bpeRegExp = (pattern) => new RegExp(new BpePattern(pattern).translated(), "gu");

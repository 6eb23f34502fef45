"""Read a byte-level BPE from Hugging Face's tokenizer.json."""

import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from lm.bounded import parse_json
from lm.config import END_OF_TEXT
from lm.errors import UsageError
from lm.tokenizer.bpe import check_pattern
from lm.tokenizer.encoding import BytePairTokenizer
from lm.tokenizer.hugging_face.writing import BYTE_OF, all_splits, merges_of, spelled_bytes
from lm.tokenizer.pattern_cost import runs_of
from lm.tokenizer.patterns import SPLIT_PATTERNS

DOCUMENT_NAMES = ((END_OF_TEXT, END_OF_TEXT), ("<|begin_of_text|>", "<|end_of_text|>"), ("<s>", "</s>"))
"""Pairs (BOS, EOS) to try if a file does not name them: GPT's, Llama 3's, and older names."""


def read_hugging_face(data: bytes, start: str = "", end: str = "") -> BytePairTokenizer:
    """Read the contents of a tokenizer.json as a byte-level BPE with the same ids for every text, except for names of
    special tokens in the text (see `hugging_face`).

    `start` and `end` are the special tokens at the beginning and end of a document; by default `start` is the one that
    the post-processor prepends, and unknown ones are found by DOCUMENT_NAMES. Raises UsageError, with the field and its
    value, if ids would differ; ValueError, KeyError, TypeError or AttributeError if the file is damaged.
    """
    contents = parse_json(data)
    model = contents["model"]
    demand(model, "type", "BPE", None, path="model.")
    for field in ("truncation", "padding", "normalizer"):
        demand(contents, field, None)
    check_expressions(contents)
    pattern = split_pattern(contents["pre_tokenizer"])
    for field, *accepted in (
        ("dropout", None, 0), ("continuing_subword_prefix", None, ""),
        ("end_of_word_suffix", None, ""), ("byte_fallback", None, False), ("ignore_merges", None, False, True),
    ):  # fmt: skip
        demand(model, field, *accepted, path="model.")
    added = contents.get("added_tokens") or []
    ranks = ranks_of(model["vocab"], {token["content"] for token in added})
    special = special_tokens(added, model["vocab"])
    check_merges(model["merges"], ranks, bool(model.get("ignore_merges")))
    head = heading(contents.get("post_processor"))
    start, end = document_names(special, start or head, end)
    check_pattern(pattern, "the pattern of pre_tokenizer")
    return BytePairTokenizer(pattern, tuple(ranks), start, end, special_tokens=special)


def demand(where: Mapping, field: str, *accepted: object, path: str = "") -> None:
    """Raise UsageError unless where[field], or None if it is absent, is one of `accepted`. `path` precedes the field's
    name in the message."""
    if (value := where.get(field)) not in accepted:
        raise refusal(path + field, value, f"only {' or '.join(map(repr, accepted))} gives the same ids here")


def refusal(field: str, value: object, reason: str) -> UsageError:
    spelled = json.dumps(value, ensure_ascii=False)
    return UsageError(f"{field} is {spelled[:300]}{'...' * (len(spelled) > 300)}: {reason}.")


def expressions_in(part: object) -> Iterator[str]:
    """Yield the regular expressions in a part of a tokenizer.json, at any depth."""
    if isinstance(part, dict) and isinstance(pattern := part.get("Regex"), str):
        yield pattern
    for one in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        if isinstance(one, dict | list):
            yield from expressions_in(one)


def check_expressions(contents: Mapping[str, object]) -> tuple[str, ...]:
    """Return the regular expressions in a tokenizer.json. Raises UsageError if one can backtrack too long."""
    found = tuple(expressions_in({name: value for name, value in contents.items() if name != "model"}))
    for pattern in found:
        try:
            runs_of(pattern)
        except ValueError as error:
            raise refusal("Regex", pattern, str(error)) from None
    return found


def split_pattern(pre_tokenizer: dict | None) -> str:
    """Return the split pattern of a pre-tokenizer, which must be a ByteLevel, or a Split and a ByteLevel. Raises
    UsageError for others."""
    steps = [pre_tokenizer or {}]
    if steps[0].get("type") == "Sequence":
        steps = steps[0]["pretokenizers"]
    kinds = [step.get("type") for step in steps]
    if kinds not in (["ByteLevel"], ["Split", "ByteLevel"]):
        raise refusal("pre_tokenizer", pre_tokenizer, "only ByteLevel, also after one Split, is supported here")
    demand(steps[-1], "add_prefix_space", False, path="pre_tokenizer: ByteLevel.")
    if len(steps) == 1:
        demand(steps[0], "use_regex", True, None, path="pre_tokenizer: ByteLevel.")
        return SPLIT_PATTERNS["gpt2"]
    demand(steps[1], "use_regex", False, path="pre_tokenizer: ByteLevel.")
    split = steps[0]
    # If a pattern skips nothing, removing all except the matches is the same as isolating them.
    if (split["behavior"], split["invert"]) not in (("Isolated", False), ("Removed", True)):
        raise refusal("pre_tokenizer: Split", split, "only an isolating split is supported here")
    pattern = split["pattern"].get("Regex")
    if pattern is None:
        raise refusal("pre_tokenizer: Split.pattern", split["pattern"], "only a Regex is supported here")
    if pattern not in SPLIT_PATTERNS.values() and not means_the_same(pattern):
        raise refusal(
            "pre_tokenizer: Split.pattern",
            pattern,
            "the regular expressions of Hugging Face's library (Oniguruma) may read this differently from ours "
            "(fancy-regex); only characters, sets, \\s, \\S, \\p, look-ahead and plain repetition are the same in "
            "both",
        )
    return pattern


def means_the_same(pattern: str) -> bool:
    """Return whether both engines, Oniguruma and fancy-regex, certainly read the pattern alike: it has only escapes
    that both share, and no anchors, flags, nested sets, {m,n}+ or {m,n}?."""
    without = pattern.replace(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)", "x"
    )  # the one flag whose letters fold alike in both engines
    without = re.sub(r"\\[pP]\{\^?\w+\}|\\[sSrnt]|\\[^\w\s]", "x", without)
    without = re.sub(r"\(\?[:=!]", "(", without)
    without = re.sub(r"\[\^?[^\[\]&^]+\]", "x", without)
    return not re.search(r"[\\^$&\[\]]|\(\?|\}[+?]", without)


def special_tokens(added: Sequence[Mapping], vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Return {name: id} of the tokens in the field added_tokens. Raises UsageError if the library removes a token, or
    spaces next to it, from every text, or gives it another id."""
    special: dict[str, int] = {}
    for token in added:
        name, id = token["content"], int(token["id"])
        for field, accepted in (("special", True), ("single_word", False), ("lstrip", False), ("rstrip", False)):
            demand(token, field, accepted, path=f"added_tokens: {name!r}.")
        known = vocabulary.get(name, max(len(vocabulary), *(id + 1 for id in special.values()), 0))
        if id != known:
            raise refusal(f"added_tokens: {name!r}.id", id, f"Hugging Face's library gives it {known} anyway")
        special[name] = id
    return special


def ranks_of(vocabulary: Mapping[str, int], special: Collection[str]) -> dict[bytes, int]:
    """Return {bytes of a token: id} in order of ids, without the tokens named in `special`. Raises UsageError if the
    ids are not 0, 1, ..."""
    ranks = {}
    for spelled, id in sorted(vocabulary.items(), key=lambda item: item[1]):
        if spelled in special:
            continue
        if not set(spelled) <= BYTE_OF.keys():
            raise refusal("model.vocab", spelled, "this is no token of bytes (only byte-level BPE is read here)")
        if id != len(ranks):
            expected = f"{len(ranks)} is expected: ids of tokens are 0, 1, ... here, and those of special tokens follow"
            raise refusal(f"model.vocab: {spelled}", id, expected)
        ranks[spelled_bytes(spelled)] = id
    return ranks


def check_merges(merges: Sequence, ranks: Mapping[bytes, int], whole_pieces: bool) -> None:
    """Raise UsageError unless `merges`, each a pair or "left right", give the same ids as `ranks` for every text."""
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    given = [(spelled_bytes(left), spelled_bytes(right)) for left, right in pairs]
    expected, needs_whole_pieces = merges_of(ranks)
    if whole_pieces and given != expected and given == all_splits(ranks):
        return
    for number, (merge, wanted) in enumerate(itertools.zip_longest(given, expected)):
        if merge != wanted:
            raise UsageError(f"model.merges[{number}] is {merge}, but the order of the vocabulary requires {wanted}.")
    if needs_whole_pieces and not whole_pieces:
        raise UsageError(
            "model.ignore_merges is false, but some tokens do not result from merges: no text would contain them."
        )


def heading(post_processor: dict | None) -> str:
    """Return the special token that a post-processor prepends to a text, or "". Raises UsageError for a kind of
    post-processor that is not supported."""
    if post_processor is None or post_processor["type"] == "ByteLevel":  # changes only offsets
        return ""
    if post_processor["type"] == "Sequence":
        return next(filter(None, map(heading, post_processor["processors"])), "")
    if post_processor["type"] != "TemplateProcessing":
        raise refusal("post_processor", post_processor, "only ByteLevel and TemplateProcessing are supported here")
    first = post_processor["single"][0].get("SpecialToken")
    return first["id"] if first else ""


def document_names(special: Mapping[str, int], start: str, end: str) -> tuple[str, str]:
    """Return the names of the tokens at the beginning and end of a document: `start` and `end` if not "", else by
    DOCUMENT_NAMES. Raises UsageError if none is found in `special`."""
    if unknown := {start, end} - {"", *special}:
        raise UsageError(f"{unknown.pop()!r} should begin or end documents, but added_tokens has {', '.join(special)}.")
    if not start and not end:
        start, end = next(((a, b) for a, b in DOCUMENT_NAMES if a in special and b in special), ("", ""))
    elif not end:
        end = next((b for a, b in DOCUMENT_NAMES if a == start and b in special), start)
    if not end:
        raise UsageError(
            f"added_tokens, {', '.join(special) or 'empty'}, does not say which of them begin and end documents. Give "
            "a folder that also has a tokenizer_config.json with bos_token and eos_token."
        )
    return start or end, end

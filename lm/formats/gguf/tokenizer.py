"""Read and write the tokenizer in a GGUF header: byte-level BPE ("gpt2" there) and sentencepiece's BPE ("llama")."""

import json

import gguf

from lm.errors import MALFORMED, InputError, UsageError
from lm.formats.byte_level import DIGITS_ALONE, DIGITS_STEPS, byte_level_of, supported_sentencepiece
from lm.formats.gguf.model import OWN
from lm.formats.source import Fields, SpecialTokens
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.encoding import BytePairTokenizer
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from lm.tokenizer.hugging_face.writing import BYTE_LEVEL, bpe_model, tokenizer_json
from lm.tokenizer.patterns import SPLIT_PATTERNS
from lm.tokenizer.published import of_json
from lm.tokenizer.sentencepiece import SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BPE, UNUSED, Piece, SentencePieceModel, read_model, write_model

PATTERNS = {
    SPLIT_PATTERNS["gpt2"]: "gpt-2", SPLIT_PATTERNS["cl100k"]: "llama-bpe", SPLIT_PATTERNS["o200k"]: "gpt-4o",
    DIGITS_ALONE: "smollm",
}  # fmt: skip
"""{split pattern: llama.cpp's name for it, in the field tokenizer.ggml.pre}. llama.cpp has code for each name, and
cannot use other patterns."""
OTHER_NAMES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe"}
"""Synonyms in files of other programs: {synonym: name}."""
WHOLE_PIECES = ("llama-bpe",)
"""Names in PATTERNS for which llama.cpp encodes a piece of text that is a token as that token, without merges."""
EOS_IDS = f"{OWN}.tokenizer.eos_ids"
"""Header field with all EOS ids, if there are more than the three that llama.cpp has fields for."""
NORMAL, CONTROL = 1, 3
"""Values of tokenizer.ggml.token_type, the same as the kinds of pieces in sentencepiece."""


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, rows: int) -> None:
    """Write the tokenizer to the header, its vocabulary padded to `rows`, the model's vocab_size. Raises UsageError for
    a tokenizer whose ids llama.cpp would not reproduce."""
    if isinstance(tokenizer, BytePairTokenizer | LibraryTokenizer):
        tokens, kinds = add_byte_pairs(writer, tokenizer)
        end = tokenizer.special_tokens[tokenizer.end]
    elif isinstance(tokenizer, SentencePieceTokenizer):
        tokens, kinds = add_sentencepiece(writer, tokenizer, rows)
        end = read_model(tokenizer.model).eos_id
        end = end if end >= 0 else tokenizer.bos_id
    else:
        raise UsageError(
            f"The tokenizer is of the kind {tokenizer.kind}, but GGUF supports bpe and sentencepiece. Use --format "
            "hugging_face or standalone."
        )
    unused = range(len(tokens), rows)
    writer.add_token_list([*tokens, *(f"[PAD{id}]" for id in unused)])
    writer.add_token_types([*kinds, *(UNUSED for _ in unused)])
    ends = tokenizer.stop_ids or (end,)
    writer.add_bos_token_id(tokenizer.bos_id)
    for add, id in zip((writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), ends, strict=False):
        add(id)
    if len(ends) > 3:
        writer.add_array(EOS_IDS, list(ends))
    writer.add_add_bos_token(tokenizer.add_bos)
    writer.add_add_eos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def add_byte_pairs(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> tuple[list[str], list[int]]:
    """Write the header fields of a byte-level BPE; return its tokens, and their values of tokenizer.ggml.token_type.
    Raises UsageError if llama.cpp does not support the split pattern or the vocabulary."""
    found = byte_level_of(tokenizer)
    if found.pattern not in PATTERNS:
        raise UsageError(
            f"llama.cpp does not support the split pattern {found.pattern!r}; it supports {', '.join(SPLIT_PATTERNS)}. "
            "Use --format hugging_face or standalone."
        )
    pre = PATTERNS[found.pattern]
    if found.whole_pieces and pre not in WHOLE_PIECES:
        raise UsageError(
            "Some tokens of the vocabulary are not made by merges, which llama.cpp supports only with the split "
            f"pattern cl100k, not with {pre}. Use --format hugging_face or standalone."
        )
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_merges([f"{left} {right}" for left, right in found.merges])
    spelled = {id: token for token, id in found.vocabulary.items()}
    special = tokenizer.special_names
    tokens, kinds = [], []
    for id in range(tokenizer.vocab_size):
        tokens.append(special.get(id) or spelled.get(id) or f"[PAD{id}]")
        kinds.append(CONTROL if id in special else NORMAL if id in spelled else UNUSED)
    return tokens, kinds


def add_sentencepiece(
    writer: gguf.GGUFWriter, tokenizer: SentencePieceTokenizer, rows: int
) -> tuple[list[str], list[int]]:
    """Write the header fields of a sentencepiece model with scores for `rows` ids; return its pieces and kinds."""
    remedy = "Use --format hugging_face or standalone."
    model = supported_sentencepiece(tokenizer, "llama.cpp's llama", remedy, (BPE,), range(1, 7))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores([*(piece.score for piece in model.pieces), *[0.0] * (rows - len(model.pieces))])
    writer.add_unk_token_id(model.unk_id)
    writer.add_add_space_prefix(model.dummy_prefix)
    writer.add_bool(f"{OWN}.tokenizer.exact", tokenizer.exact)
    writer.add_bool(f"{OWN}.tokenizer.has_end", model.eos_id >= 0)
    return [piece.text for piece in model.pieces], [piece.kind for piece in model.pieces]


def read_special_tokens(header: Fields) -> SpecialTokens:
    """Return the BOS and EOS ids and the chat template in the header. Raises InputError for fields of another type."""
    id_of = lambda name: header.read(f"tokenizer.ggml.{name}_token_id", int, -1)
    ends = header.read(EOS_IDS, list) if EOS_IDS in header.values else map(id_of, ("eos", "eot", "eom"))
    # llama.cpp's own default: sentencepiece models and Llama 3's vocabulary begin with BOS.
    pre = header.read("tokenizer.ggml.pre", str, "default")
    headed = header.read("tokenizer.ggml.model", str) == "llama" or OTHER_NAMES.get(pre, pre) in WHOLE_PIECES
    return SpecialTokens(
        bos=None if id_of("bos") < 0 else id_of("bos"),
        eos=tuple(dict.fromkeys(id for id in ends if type(id) is int and id >= 0)),
        add_bos=header.read("tokenizer.ggml.add_bos_token", bool, headed),
        chat_template=header.read("tokenizer.chat_template", str, ""),
    )


def read_tokenizer(header: Fields) -> Tokenizer:
    """Return the tokenizer in the header. Raises UsageError, with the field and its value, if its ids cannot be
    reproduced, InputError if it is damaged."""
    kind = header.read("tokenizer.ggml.model", str)
    readers = {"gpt2": read_byte_pairs, "llama": read_sentencepiece}
    if kind not in readers:
        raise UsageError(
            f"{header.path}: tokenizer.ggml.model is {kind!r}; {' and '.join(readers)} are supported. {REMEDY}"
        )
    try:
        return readers[kind](header)
    except UsageError as error:
        raise UsageError(f"{header.path}: the tokenizer cannot be reproduced: {error} {REMEDY}") from error
    except (IndexError, *MALFORMED) as error:
        raise InputError(
            f"{header.path}: the tokenizer is damaged: {type(error).__name__}: {error}. Download the file again."
        ) from error


REMEDY = "Name the tokenizer yourself: --tokenizer FOLDER_OR_NAME."


def read_byte_pairs(header: Fields) -> Tokenizer:
    """Return a byte-level BPE from the header, by converting it to an equivalent tokenizer.json. Raises UsageError for
    a split pattern that is not supported."""
    pre = header.read("tokenizer.ggml.pre", str, "default")
    pre = OTHER_NAMES.get(pre, pre)
    patterns = {theirs: pattern for pattern, theirs in PATTERNS.items()}
    if pre not in patterns:
        raise UsageError(f"tokenizer.ggml.pre is {pre!r}; {', '.join((*patterns, *OTHER_NAMES))} are supported.")
    tokens, kinds = header.read("tokenizer.ggml.tokens", list), header.read("tokenizer.ggml.token_type", list)
    special = {token: id for id, token in enumerate(tokens) if kinds[id] == CONTROL}
    vocabulary = {token: id for id, token in enumerate(tokens) if kinds[id] in (NORMAL, CONTROL)}
    split = {"type": "Split", "pattern": {"Regex": patterns[pre]}, "behavior": "Isolated", "invert": False}
    steps = [split, BYTE_LEVEL]
    if patterns[pre] == DIGITS_ALONE:
        steps = [{**step, "trim_offsets": False} if step["type"] == "ByteLevel" else step for step in DIGITS_STEPS]
    merges = [merge.split(" ") for merge in header.read("tokenizer.ggml.merges", list)]
    contents = tokenizer_json(
        bpe_model(vocabulary, merges, ignore_merges=pre in WHOLE_PIECES), special,
        pre_tokenizer={"type": "Sequence", "pretokenizers": steps}, decoder=BYTE_LEVEL,
    )  # fmt: skip
    end = tokens[header.read("tokenizer.ggml.eos_token_id", int)]
    start = tokens[header.read("tokenizer.ggml.bos_token_id", int, special[end])]
    return of_json(json.dumps(contents).encode(), start, end)


def read_sentencepiece(header: Fields) -> SentencePieceTokenizer:
    """Return a sentencepiece model from the header, with the same ids as in llama.cpp. Raises UsageError if it removes
    white space."""
    tokens, kinds = header.read("tokenizer.ggml.tokens", list), header.read("tokenizer.ggml.token_type", list)
    scores = header.read("tokenizer.ggml.scores", list)
    if header.read("tokenizer.ggml.remove_extra_whitespaces", bool, False):
        raise UsageError("tokenizer.ggml.remove_extra_whitespaces is True; only False is supported.")
    count = len(tokens)
    while count and kinds[count - 1] == UNUSED:
        count -= 1
    bos, eos = (header.read(f"tokenizer.ggml.{name}_token_id", int) for name in ("bos", "eos"))
    model = SentencePieceModel(
        pieces=tuple(map(Piece, tokens[:count], map(float, scores), kinds)), kind=BPE,
        dummy_prefix=header.read("tokenizer.ggml.add_space_prefix", bool, True), shortens=False, charsmap=b"",
        unk_id=header.read("tokenizer.ggml.unknown_token_id", int, 0), bos_id=bos,
        eos_id=eos if header.read(f"{OWN}.tokenizer.has_end", bool, True) else -1,
    )  # fmt: skip
    return SentencePieceTokenizer.from_model(write_model(model), header.read(f"{OWN}.tokenizer.exact", bool, False))

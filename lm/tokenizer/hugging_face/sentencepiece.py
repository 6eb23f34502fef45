"""A sentencepiece model as a tokenizer.json, which Hugging Face's tokenizers library reads."""

import struct
from typing import Any

from lm.errors import UsageError
from lm.tokenizer.sentencepiece import BLANK, SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BPE, fields_of


def sentencepiece_json(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    """The contents of tokenizer.json of a BPE or unigram model, with bytes to fall back to.

    It gives the same ids, save for a text that has U+2581 itself, which is a blank there, and, of a unigram model,
    where two ways to cut a text are equally likely, as for a run of one letter. Raises UsageError for a model that
    normalises, or has no bytes.
    """
    model_parts = fields_of(tokenizer.model)
    trainer, rules = fields_of(b"".join(model_parts[2])), fields_of(b"".join(model_parts[3]))
    charsmap, shortens = rules.get(2, [b""])[-1], rules.get(4, [1])[-1]
    if charsmap or shortens or not trainer.get(35, [0])[-1]:
        raise UsageError(
            f"This sentencepiece model normalises text (a table of {len(charsmap)} bytes, remove_extra_whitespaces = "
            f"{bool(shortens)}) or has no bytes to fall back to (byte_fallback = {bool(trainer.get(35, [0])[-1])}): a "
            "tokenizer.json would give other ids."
        )
    found = [fields_of(piece) for piece in model_parts[1]]
    pieces = [(one[1][0].decode(), struct.unpack("<f", one[2][0])[0] if 2 in one else 0.0) for one in found]
    unk_id, dummy_prefix = trainer.get(40, [0])[-1], rules.get(3, [1])[-1]
    special = [
        {"id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for name, id in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
    ]  # fmt: skip
    unknown = pieces[unk_id][0]
    if trainer.get(3, [1])[-1] == BPE:
        model = {
            "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": {piece: id for id, (piece, _) in enumerate(pieces)}, "merges": merges_of(pieces),
        }  # fmt: skip
    else:
        model = {
            "type": "Unigram",
            "unk_id": unk_id,
            "byte_fallback": True,
            "vocab": [[*one] for one in pieces],
        }
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    before = [{"type": "Prepend", "prepend": BLANK}] if dummy_prefix else []
    decoders = [
        {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [*before, blanks]}, "pre_tokenizer": None,
        "post_processor": None, "decoder": {"type": "Sequence", "decoders": decoders}, "model": model,
    }  # fmt: skip


def merges_of(pieces: list[tuple[str, float]]) -> list[list[str]]:
    """Every way in which a piece is two others, the best piece first; of one piece's, by the halves' numbers."""
    ids = {piece: id for id, (piece, _) in enumerate(pieces)}
    found = []
    for piece, score in pieces:
        halves = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        found += [
            (-score, ids[left], ids[right], left, right) for left, right in halves if left in ids and right in ids
        ]
    return [[left, right] for *_, left, right in sorted(found)]

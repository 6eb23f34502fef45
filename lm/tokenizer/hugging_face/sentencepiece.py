"""Convert a sentencepiece model to a tokenizer.json for Hugging Face's tokenizers library."""

from typing import Any

from lm.errors import UsageError
from lm.tokenizer.sentencepiece import BLANK, SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BPE, BYTE, read_model


def sentencepiece_json(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    """Return the contents of tokenizer.json for a BPE or unigram model with byte fallback.

    Ids are the same, except for a text that contains U+2581, which is read as a space, and, with a unigram model, if
    two segmentations are equally likely, as for a run of one letter. Raises UsageError for a model that normalizes or
    has no bytes.
    """
    found = read_model(tokenizer.model)
    has_bytes = any(piece.kind == BYTE for piece in found.pieces)
    if found.charsmap or found.shortens or not has_bytes:
        raise UsageError(
            f"This sentencepiece model normalises text (a table of {len(found.charsmap)} bytes, "
            f"remove_extra_whitespaces = {found.shortens}) or has no bytes to fall back to (byte_fallback = "
            f"{has_bytes}): a tokenizer.json would give other ids."
        )
    pieces = [(piece.text, piece.score) for piece in found.pieces]
    special = [
        {"id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for name, id in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
    ]  # fmt: skip
    if found.kind == BPE:
        model = {
            "type": "BPE", "dropout": None, "unk_token": pieces[found.unk_id][0], "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": {piece: id for id, (piece, _) in enumerate(pieces)}, "merges": merges_of(pieces),
        }  # fmt: skip
    else:
        model = {
            "type": "Unigram",
            "unk_id": found.unk_id,
            "byte_fallback": True,
            "vocab": [[*one] for one in pieces],
        }
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    before = [{"type": "Prepend", "prepend": BLANK}] if found.dummy_prefix else []
    decoders = [
        {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [*before, blanks]}, "pre_tokenizer": None,
        "post_processor": None, "decoder": {"type": "Sequence", "decoders": decoders}, "model": model,
    }  # fmt: skip


def merges_of(pieces: list[tuple[str, float]]) -> list[list[str]]:
    """Return every pair of pieces whose concatenation is a piece, ordered by its score (best first), then by the ids of
    the halves."""
    ids = {piece: id for id, (piece, _) in enumerate(pieces)}
    found = []
    for piece, score in pieces:
        halves = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        found += [
            (-score, ids[left], ids[right], left, right) for left, right in halves if left in ids and right in ids
        ]
    return [[left, right] for *_, left, right in sorted(found)]

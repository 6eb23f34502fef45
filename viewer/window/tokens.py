"""Tokenizers for the page "Tokens" of the window: the run's own, and those to compare with."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lm.errors import InputError
from lm.serving.errors import ApiError, wrong
from lm.serving.fields import Fields
from lm.serving.inspections import Inspection
from lm.tokenizer import BytePairTokenizer, Tokenizer
from lm.tokenizer.sentencepiece import SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BPE, NORMAL, USER_DEFINED, read_model
from viewer.training_data import visible
from viewer.window.model_views import RECORDED_PROMPTS, packed
from viewer.window.window_run import WindowRun

IN_PAGE = ("bpe", "characters")
"""Kinds that static/bpe.js encodes in the page; "encode" handles the others, and split patterns that JavaScript does
not support."""
MOST_CHARACTERS = 20_000
"""Maximum characters of a text for "encode"."""


def inspections(run: WindowRun) -> list[Inspection]:
    named = {run.name: run.tokenizer} | run.beside
    others = list(named)[1:]
    return [
        Inspection(
            "vocabulary", ("tokenizer",), lambda fields: vocabulary(*asked_for(named, fields)) | {"others": others},
            "the tokens of the run's tokenizer, or of another that the server was given",
        ),
        Inspection(
            "encode", ("text", "tokenizer"), lambda fields: encoded(asked_for(named, fields)[1], fields),
            "the token ids of a text, for tokenizers that the page cannot do itself",
        ),
    ]  # fmt: skip


def to_record(run: WindowRun) -> Iterator[tuple[str, dict]]:
    yield "vocabulary", {}
    if run.tokenizer.kind not in IN_PAGE:
        for prompt in run.experiment.sample.prompts[:RECORDED_PROMPTS]:
            yield "encode", {"text": prompt}


def asked_for(named: Mapping[str, Tokenizer], fields: Fields) -> tuple[str, Tokenizer]:
    """(name, tokenizer) of the field "tokenizer", default: the first. Raises ApiError 400 for an unknown name."""
    name = fields.string("tokenizer", next(iter(named)))
    if name not in named:
        raise wrong("tokenizer", name, f"one of {', '.join(named)}; launch.serve --beside gives it others")
    return name, named[name]


def vocabulary(name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Text and bytes (in hexadecimal) of each id. Tokens of a BPE except the special ones are merged in order of their
    ids, sentencepiece's in the order of `order`."""
    parts = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
    found: dict[str, Any] = {
        "name": name,
        "kind": tokenizer.kind,
        "tokens": [visible(part) for part in parts],
        "bytes": [part.hex() for part in parts],
        "special": dict(tokenizer.special_tokens),
    }
    if isinstance(tokenizer, BytePairTokenizer):
        found["pattern"] = tokenizer.pattern
    elif isinstance(tokenizer, SentencePieceTokenizer) and (order := merge_order(tokenizer)):
        found["order"] = order
    return found


def merge_order(tokenizer: SentencePieceTokenizer) -> list[int]:
    """Order in which the ids were merged, counted from 0, by the scores of sentencepiece's BPE; -1 for bytes and
    special tokens, which are not merged. Empty for models of other kinds, and with user-defined pieces."""
    model = read_model(tokenizer.model)
    if model.kind != BPE or any(piece.kind == USER_DEFINED for piece in model.pieces):
        return []
    merged = sorted((-piece.score, id) for id, piece in enumerate(model.pieces) if piece.kind == NORMAL)
    order = [-1] * len(model.pieces)
    for place, (_, id) in enumerate(merged):
        order[id] = place
    return order


def encoded(tokenizer: Tokenizer, fields: Fields) -> dict[str, object]:
    """Ids of the field "text". Raises ApiError 400 if it is too long, or contains a character without a token."""
    text = fields.string("text", "")
    if len(text) > MOST_CHARACTERS:
        raise wrong("text", text, f"of at most {MOST_CHARACTERS:,} characters here, and it has {len(text):,}")
    try:
        ids = tokenizer.encode(text)
    except InputError as error:
        raise ApiError(400, str(error), param="text", code="invalid_value") from error
    return {"ids": packed(np.array(ids, np.int32))}

"""Tokenizers as the window's page "Tokens" wants them: the run's own, and those that it is set beside."""

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
"""Kinds that static/bpe.js cuts in the page itself; "encode" cuts the others, and for a split pattern that JavaScript
does not read."""
MOST_CHARACTERS = 20_000
"""Of a text that "encode" cuts."""


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
    """(its name, the tokenizer) of the field "tokenizer", by default the first. Raises ApiError 400 for no name."""
    name = fields.string("tokenizer", next(iter(named)))
    if name not in named:
        raise wrong("tokenizer", name, f"one of {', '.join(named)}; launch.serve --beside gives it others")
    return name, named[name]


def vocabulary(name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Each id's text and bytes (in hexadecimal). A BPE's tokens but the special ones are merged in order of their
    ids, sentencepiece's in that of `order`."""
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
    """When each id was merged, counted from 0, by the scores that sentencepiece's BPE gives its pieces; -1 for bytes
    and special tokens, which no merge makes. Empty for models of other kinds, and where pieces were set by hand."""
    model = read_model(tokenizer.model)
    if model.kind != BPE or any(piece.kind == USER_DEFINED for piece in model.pieces):
        return []
    merged = sorted((-piece.score, id) for id, piece in enumerate(model.pieces) if piece.kind == NORMAL)
    order = [-1] * len(model.pieces)
    for place, (_, id) in enumerate(merged):
        order[id] = place
    return order


def encoded(tokenizer: Tokenizer, fields: Fields) -> dict[str, object]:
    """The ids of the field "text". Raises ApiError 400 for one that is too long, or has what no token stands for."""
    text = fields.string("text", "")
    if len(text) > MOST_CHARACTERS:
        raise wrong("text", text, f"of at most {MOST_CHARACTERS:,} characters here, and it has {len(text):,}")
    try:
        ids = tokenizer.encode(text)
    except InputError as error:
        raise ApiError(400, str(error), param="text", code="invalid_value") from error
    return {"ids": packed(np.array(ids, np.int32))}

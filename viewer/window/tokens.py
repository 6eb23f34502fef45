"""Tokenizers for the page "Tokens" of the window: the run's own, and those to compare with."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from data_prep.shards.tokenize import document_files
from lm.serving.fields import Fields, wrong
from lm.serving.inspections import Inspection
from lm.serving.protocol import encode_text
from lm.tokenizer import BytePairTokenizer, Tokenizer
from lm.tokenizer.sentencepiece import SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BPE, NORMAL, USER_DEFINED, read_model
from viewer.page import packed
from viewer.tokenizer.comparison import comparison, sampled
from viewer.training_data import visible
from viewer.window.model_views import RECORDED_PROMPTS
from viewer.window.window_run import WindowRun

IN_PAGE = ("bpe", "characters")
"""Kinds of tokenizers that static/bpe.js runs in the page; the server encodes for others (/v1/inspect/encode), and for
split patterns that JavaScript does not support."""
MOST_CHARACTERS = 20_000
"""Maximum characters of a text for "encode"."""


def vocabulary(name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a tokenizer as JSON: text and bytes (in hexadecimal) of each id, special tokens, and the order of merges:
    that of the ids for a byte-level BPE, "order" for sentencepiece."""
    parts = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
    found = {
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
    """Return the rank, from 0, at which each id is merged, by its score in a BPE model of sentencepiece; -1 for bytes
    and special tokens, which are not merged. Empty for other models, and for those with user-defined pieces."""
    model = read_model(tokenizer.model)
    if model.kind != BPE or any(piece.kind == USER_DEFINED for piece in model.pieces):
        return []
    merged = sorted((-piece.score, id) for id, piece in enumerate(model.pieces) if piece.kind == NORMAL)
    order = [-1] * len(model.pieces)
    for place, (_, id) in enumerate(merged):
        order[id] = place
    return order


DOCUMENTS, DOCUMENT_CHARACTERS = 200, 10_000
"""Documents of the run in which the uses of tokens are counted, and maximum characters of each, to bound the time."""


def inspections(run: WindowRun) -> list[Inspection]:
    named = {run.name: run.tokenizer} | run.beside
    others = list(named)[1:]

    def compared(fields: Fields) -> dict[str, Any]:
        if not any(run.paths.documents.glob("*.parquet")):
            return comparison(named)
        files = document_files(run.paths.documents)
        return comparison(named, sampled(files, DOCUMENTS, DOCUMENT_CHARACTERS), sum(file.rows for file in files))

    return [
        Inspection(
            "vocabulary", ("tokenizer",), lambda fields: vocabulary(*asked_for(named, fields)) | {"others": others},
            "the vocabulary of the run's tokenizer, or of another one on the server",
        ),
        Inspection(
            "encode", ("text", "tokenizer"), lambda fields: encoded(asked_for(named, fields)[1], fields),
            "the token ids of a text, for tokenizers that the page cannot run itself",
        ),
        Inspection(
            "comparison", (), compared, "bytes per token by language and kind of text, and uses of tokens in documents"
        ),
    ]  # fmt: skip


def to_record(run: WindowRun) -> Iterator[tuple[str, dict]]:
    yield "vocabulary", {}
    yield "comparison", {}
    if run.tokenizer.kind not in IN_PAGE:
        for prompt in run.experiment.sample.prompts[:RECORDED_PROMPTS]:
            yield "encode", {"text": prompt}


def asked_for(named: Mapping[str, Tokenizer], fields: Fields) -> tuple[str, Tokenizer]:
    """Return (name, tokenizer) for the field "tokenizer"; default: the first. Raises ApiError 400 if it is unknown."""
    name = fields.string("tokenizer", next(iter(named)))
    if name not in named:
        raise wrong("tokenizer", name, f"one of {', '.join(named)}; launch.serve --beside adds others")
    return name, named[name]


def encoded(tokenizer: Tokenizer, fields: Fields) -> dict[str, object]:
    """Answer /v1/inspect/encode: ids of the field "text". Raises ApiError 400 if it is too long, or if the tokenizer
    lacks a character of it."""
    ids = encode_text(fields.string("text", "", MOST_CHARACTERS), tokenizer, param="text")
    return {"ids": packed(np.array(ids, np.int32))}

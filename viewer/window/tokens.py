"""Tokenizers for the page "Tokens" of the window, the run's own and others: their vocabularies, and how they spend
tokens on texts, languages and documents."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.parquet import read_batches
from data_prep.shards.tokenize import DocumentFile, document_files
from lm.errors import InputError
from lm.serving.fields import Fields, wrong
from lm.serving.inspections import Inspection
from lm.serving.protocol import encode_text
from lm.tokenizer import BytePairTokenizer, Tokenizer
from lm.tokenizer.sentencepiece import SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BPE, NORMAL, USER_DEFINED, read_model
from viewer.page import packed
from viewer.tokenizer.samples import KINDS, LANGUAGES
from viewer.training_data import has_letter, visible
from viewer.window.model_views import RECORDED_PROMPTS
from viewer.window.window_run import WindowRun

EXAMPLES = 48
"""Maximum tokens of a list."""


def comparison(
    tokenizers: Mapping[str, Tokenizer], documents: Sequence[tuple[str, str]] = (), total: int = 0
) -> dict[str, Any]:
    """Return the JSON that compares tokenizers, for the page "Tokens": tokens of each sample text (0 if a tokenizer
    cannot encode it), longest tokens, and usage in `documents`, (text, language) of some of `total` documents."""

    def counted(samples: Mapping[str, str]) -> list[dict[str, Any]]:
        return [
            {"name": name, "bytes": len(text.encode()),
             "tokens": [count_tokens(text, one) for one in tokenizers.values()]}
            for name, text in samples.items()
        ]  # fmt: skip

    return {
        "tokenizers": list(tokenizers), "languages": counted(LANGUAGES), "kinds": counted(KINDS),
        "lists": [
            {"longest": longest(one, EXAMPLES // 2, has_letter),
             "without_letters": longest(one, 6, lambda token: not has_letter(token))}
            for one in tokenizers.values()
        ],
        "corpora": [usage_in(documents, one) | {"documents": total} for one in tokenizers.values()]
        if documents else [],
    }  # fmt: skip


def count_tokens(text: str, tokenizer: Tokenizer) -> int:
    """Return the number of tokens of `text`; 0 if the tokenizer, such as one of characters, cannot encode it."""
    try:
        return len(tokenizer.encode(text))
    except InputError:
        return 0


def usage_in(documents: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return as JSON how documents, as (text, language), use a vocabulary: bytes per token by language, from the most
    frequent, the rarest tokens as [id, count] (ties: last merged first), and examples of tokens that they never use."""
    counts_V = np.zeros(tokenizer.vocab_size, np.int64)
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, np.int64))  # documents, bytes, tokens
    for (text, language), ids in zip(documents, tokenizer.encode_batch([text for text, _ in documents]), strict=True):
        counts_V += np.bincount(np.array(ids, np.int64), minlength=len(counts_V))
        sums[language or "unknown"] += 1, len(text.encode("utf-8", "replace")), len(ids)
    languages = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))
    ids = text_ids(tokenizer)
    rarest = sorted((id for id in ids if counts_V[id]), key=lambda id: (counts_V[id], -id))
    unused = [id for id in ids if not counts_V[id]]
    read, size, tokens = sum(sums.values(), np.zeros(3, np.int64)).tolist()
    return {
        "read": read, "bytes": size, "tokens": tokens,
        "by_language": [[name, int(read), size / max(1, tokens)] for name, (read, size, tokens) in languages[:20]],
        "rarest": [[id, int(counts_V[id])] for id in rarest[:EXAMPLES]],
        "unused": len(unused),
        "unused_examples": [unused[len(unused) * i // EXAMPLES] for i in range(EXAMPLES)]
        if len(unused) > EXAMPLES else unused,
    }  # fmt: skip


def longest(tokenizer: Tokenizer, count: int, keep: Callable[[bytes], bool]) -> list[int]:
    """Ids of the `count` tokens with the most bytes for which `keep` is true, longest first; ties by ascending id."""
    ids = [id for id in text_ids(tokenizer) if keep(tokenizer.token_bytes(id))]
    return sorted(ids, key=lambda id: (-len(tokenizer.token_bytes(id)), id))[:count]


def text_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of all tokens that encode text: not the special tokens, and not unused ids."""
    special = frozenset(tokenizer.special_tokens.values())
    return [id for id in range(tokenizer.vocab_size) if id not in special and tokenizer.token_bytes(id)]


def sampled(files: list[DocumentFile], documents: int, characters: int) -> list[tuple[str, str]]:
    """Return (text, language) of the first documents of each file, about equally many, `documents` in total, and at
    most `characters` of each. If there are more than `documents` files, take one document from each of `documents`
    files spread over the corpus."""
    files = [file for file in files if file.rows]
    if len(files) > documents:
        files = [files[len(files) * i // documents] for i in range(documents)]
    rows = []
    for number, file in enumerate(
        sorted(files, key=lambda file: file.rows)
    ):  # smallest first: the others make up for it
        share = -(-(documents - len(rows)) // (len(files) - number))
        batches = read_batches(file.path, ["text", "language"], min(256, max(1, share)))
        some = itertools.islice((row for batch in batches for row in batch.to_pylist()), share)
        rows += [(row["text"][:characters], row["language"]) for row in some]
    return rows


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

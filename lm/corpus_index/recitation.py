"""Whether a model goes on with a document word for word, from its first tokens alone: what it has learnt by heart
(Carlini et al. 2023, arXiv:2202.07646), beside documents that it never saw."""

from collections.abc import Sequence
from typing import NamedTuple

from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.tokenizer import Tokenizer

TOKENS = 32
"""That the model goes on with."""


class Recitation(NamedTuple):
    """What a model made of the first tokens of a document."""

    prefix: int
    """Tokens of the document that it was given, after the head."""
    asked: int
    """Tokens that it was to go on with."""
    right: int
    """How many of those are the document's, each in its place."""
    verbatim: int
    """How many are, before the first that is not."""
    tokens: tuple[int, ...]
    """What it went on with, from the likeliest token to the likeliest; less than was asked where it ended the text."""


def prefixes_for(length: int, context: int, tokens: int = TOKENS) -> list[int]:
    """8, 16, 32, ... as long as document and context have `tokens` more."""
    powers = (2**power for power in range(3, 31))
    most = min(length, context - 1) - tokens
    found = []
    for prefix in powers:
        if prefix > most:
            break
        found.append(prefix)
    return found


def recite(
    engine: Engine, tokenizer: Tokenizer, document: Sequence[int], prefixes: Sequence[int], tokens: int = TOKENS
) -> list[Recitation]:
    """What the engine's model goes on with behind each of `prefixes` tokens of the document, which has at least
    `tokens` more."""
    settings = SamplingParams(tokens, temperature=0.0)
    rows = [(tokenizer.bos_id, *(int(one) for one in document[:prefix])) for prefix in prefixes]
    completions = engine.complete([GenerationRequest(row, settings) for row in rows])
    found = []
    for prefix, completion in zip(prefixes, completions, strict=True):
        truth = [int(one) for one in document[prefix : prefix + tokens]]
        same = [a == b for a, b in zip(completion.tokens, truth, strict=False)]
        verbatim = same.index(False) if False in same else len(same)
        found.append(Recitation(prefix, len(truth), sum(same), verbatim, completion.tokens))
    return found

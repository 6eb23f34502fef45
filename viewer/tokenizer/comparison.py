"""Comparison of tokenizers: bytes per token by language and kind of text, and the ends of their vocabularies."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm.tokenizer import Tokenizer
from viewer.tokenizer.corpus import Corpus
from viewer.tokenizer.look import has_tokens, longest, never_used, rarest
from viewer.tokenizer.samples import KINDS, LANGUAGES
from viewer.training_data import has_letter

EXAMPLES = 48
"""Maximum tokens of a list."""


def comparison(tokenizers: Mapping[str, Tokenizer], corpora: Sequence[Corpus]) -> dict[str, Any]:
    """Return the JSON that compares tokenizers, for the page "Tokens": tokens of each sample text (0 if a tokenizer
    cannot encode it), longest tokens, and usage in `corpora`, which has one entry per tokenizer or is empty."""

    def counted(samples: Mapping[str, str]) -> list[dict[str, Any]]:
        return [
            {"name": name, "bytes": len(text.encode()),
             "tokens": [len(one.encode(text)) if has_tokens(text, one) else 0 for one in tokenizers.values()]}
            for name, text in samples.items()
        ]  # fmt: skip

    return {
        "tokenizers": list(tokenizers), "languages": counted(LANGUAGES), "kinds": counted(KINDS),
        "lists": [
            {"longest": longest(one, EXAMPLES // 2, has_letter),
             "without_letters": longest(one, 6, lambda token: not has_letter(token))}
            for one in tokenizers.values()
        ],
        "corpora": [usage_in(corpus, one) for corpus, one in zip(corpora, tokenizers.values(), strict=True)]
        if corpora else [],
    }  # fmt: skip


def usage_in(corpus: Corpus, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return as JSON how the documents use a vocabulary: bytes per token by language, the rarest tokens as [id, count],
    and examples of tokens that they never use."""
    usage, unused = corpus.usage, never_used(corpus.usage, tokenizer)
    return {
        "documents": corpus.documents, "read": usage.texts, "bytes": usage.text_bytes, "tokens": usage.tokens,
        "by_language": [[name, *pair] for name, pair in corpus.by_language.items()][:20],
        "rarest": [[id, int(usage.counts[id])] for id in rarest(usage, tokenizer, EXAMPLES)],
        "unused": len(unused),
        "unused_examples": [unused[len(unused) * i // EXAMPLES] for i in range(EXAMPLES)]
        if len(unused) > EXAMPLES else unused,
    }  # fmt: skip

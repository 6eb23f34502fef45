"""Tokenizer: the vocabulary as plain values, with tiktoken doing the work of encoding."""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

END_OF_TEXT = "<|endoftext|>"

# The split patterns look ahead behind a run of white space; both tiktoken and rustbpe keep one entry of a stack for
# each character of the run and abort at a million. No text that means anything has such a run, but a hostile page may.
LONGEST_RUN = 200_000
_RUN = re.compile(r"\s+")


def sections(text: str) -> Iterator[str]:
    """`text` in order, cut inside every run of white space longer than LONGEST_RUN; nearly always `text` itself.

    Training and encoding both go through here, so that they see the same pieces.
    """
    start = 0
    if len(text) > LONGEST_RUN:
        for run in _RUN.finditer(text):
            for cut in range(run.start() + LONGEST_RUN, run.end(), LONGEST_RUN):
                yield text[start:cut]
                start = cut
    yield text[start:] if start else text


@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE vocabulary. Every text has tokens, and every byte string a decoding.

    Picklable; the tiktoken encoding is made on first use, once a process.
    """

    pattern: str
    """Regular expression (fancy-regex syntax) that cuts text into pieces; merges never cross a cut."""
    tokens: tuple[bytes, ...]
    """Bytes of token 0, 1, ...: the 256 single bytes, then the merges in the order in which they are applied."""
    special_tokens: tuple[str, ...] = (END_OF_TEXT,)
    """Names of the ids that follow; no text encodes to them."""
    documents: int = 0
    """Documents that it was trained on."""
    characters: int = 0
    """Characters of text that it was trained on."""

    def __post_init__(self):
        if len(set(self.tokens)) != len(self.tokens):
            raise ValueError(f"{len(self.tokens) - len(set(self.tokens))} tokens occur twice")
        missing = 256 - sum(len(token) == 1 for token in self.tokens)
        if missing or END_OF_TEXT not in self.special_tokens:
            raise ValueError(f"{missing} single bytes are missing; special tokens are {self.special_tokens}")

    @property
    def vocabulary_size(self) -> int:
        """Ids in all, special ones included."""
        return len(self.tokens) + len(self.special_tokens)

    @property
    def end_of_text(self) -> int:
        """Id of <|endoftext|>, which heads every document: the last id, where it is the only special token."""
        return len(self.tokens) + self.special_tokens.index(END_OF_TEXT)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) over all that decides the ids: pattern, tokens in order, special tokens."""
        digest = hashlib.sha256(b"gristmill tokenizer 1")
        special = [name.encode() for name in self.special_tokens]
        for group in ([self.pattern.encode()], self.tokens, special):
            digest.update(len(group).to_bytes(8, "little"))
            for item in group:
                digest.update(len(item).to_bytes(8, "little") + item)
        return digest.hexdigest()

    @functools.cached_property
    def _encoding(self):
        import tiktoken

        return tiktoken.Encoding(
            f"gristmill-{self.fingerprint[:12]}",
            pat_str=self.pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(self.tokens)},
            special_tokens={name: len(self.tokens) + i for i, name in enumerate(self.special_tokens)},
        )

    @functools.cached_property
    def _bytes(self) -> dict[int, bytes]:
        return dict(enumerate((*self.tokens, *(name.encode() for name in self.special_tokens))))

    def __reduce__(self):  # without the tiktoken encoding, which pickles only when it is registered by name
        return Tokenizer, (self.pattern, self.tokens, self.special_tokens, self.documents, self.characters)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`. The name of a special token in it is plain text; lone surrogates become U+FFFD."""
        if len(text) <= LONGEST_RUN:
            return self._encoding.encode_ordinary(text)
        return [id for section in sections(text) for id in self._encoding.encode_ordinary(section)]

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[list[int]]:
        """`encode` of each text, in order, on `threads` threads."""
        from concurrent.futures import ThreadPoolExecutor

        if threads == 1:
            return [self.encode(text) for text in texts]
        self._encoding  # noqa: B018 (made here once, not in every thread)
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.encode, texts))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`; special tokens decode to their names. Raises ValueError for an id of none."""
        try:
            return b"".join(map(self._bytes.__getitem__, ids))
        except KeyError as error:
            raise ValueError(f"token id {error} is outside the vocabulary of {self.vocabulary_size} symbols") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, U+FFFD where bytes are not UTF-8 (a cut through a character). Raises as decode_bytes."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token. Raises as decode_bytes."""
        return self.decode_bytes((id,))

"""Byte-level BPE, encoded by tiktoken."""

import base64
import contextlib
import functools
import hashlib
import re
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm.bounded import MOST_TOKENIZER_BYTES, read_bounded
from lm.config import END_OF_TEXT
from lm.errors import UsageError
from lm.storage import file_inside
from lm.tokenizer.base import Tokenizer, check_size, whole_characters
from lm.tokenizer.hugging_face.writing import write_hugging_face
from lm.tokenizer.pattern_cost import check_text, runs_of
from lm.tokenizer.patterns import SPLIT_PATTERNS

RANKS, HUGGING_FACE = "tokenizer.tiktoken", "tokenizer.json"

# The split patterns look ahead after a run of white space; both tiktoken and rustbpe push one stack entry for each
# character of the run and abort at a million. Real text has no such run, but a hostile page may.
LONGEST_RUN = 200_000
_RUN = re.compile(r"\s+")


def write_ranks(tokens: Iterable[bytes]) -> bytes:
    """Return tokens 0, 1, ... in tiktoken's file format: "<base64 of the bytes> <id>" on each line."""
    return b"".join(b"%b %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))


def read_ranks(data: bytes) -> tuple[bytes, ...]:
    """Parse tiktoken's file format into tokens 0, 1, ... Raises ValueError, with the line, if ids are not in order."""
    tokens = []
    for number, line in enumerate(data.decode("ascii").removesuffix("\n").split("\n")):
        encoded, rank = line.split(" ")
        if int(rank) != number:
            raise ValueError(f"line {number + 1} has rank {rank}, not {number}")
        tokens.append(base64.b64decode(encoded, validate=True))
        if base64.b64encode(tokens[-1]).decode() != encoded:
            raise ValueError(f"line {number + 1} is no base64: {encoded}")
    return tuple(tokens)


def sections(text: str) -> Iterator[str]:
    """Yield the text in parts: only a run of white space longer than LONGEST_RUN characters is divided, so almost every
    text is one part. Training and encoding both use this, so they split texts into the same pieces."""
    start = 0
    if len(text) > LONGEST_RUN:
        for run in _RUN.finditer(text):
            for cut in range(run.start() + LONGEST_RUN, run.end(), LONGEST_RUN):
                yield text[start:cut]
                start = cut
    yield text[start:] if start else text


@contextlib.contextmanager
def no_panic(message: str) -> Generator[None]:
    """Convert panics of Rust libraries in the block, which are no Exceptions, to UsageError with this message."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise UsageError(f"{message} ({error})") from None


def numbered(tokens: Collection[bytes], names: Iterable[str]) -> dict[str, int]:
    """Return {name: id} of special tokens, whose ids follow those of `tokens`, in order."""
    return {name: len(tokens) + i for i, name in enumerate(names)}


@dataclass(frozen=True)
class BytePairTokenizer(Tokenizer):
    """A byte-level BPE vocabulary. It can encode any text and any bytes. The tiktoken encoding is built on first use,
    once per process. Raises ValueError for an invalid vocabulary."""

    kind = "bpe"
    pattern: str
    """Regular expression (fancy-regex syntax) that cuts text into pieces; merges never cross a cut."""
    tokens: tuple[bytes, ...]
    """Bytes of token 0, 1, ...: the 256 single bytes, then the merges in the order in which they are applied."""
    start: str = END_OF_TEXT
    """Name of the special token at the beginning of a document."""
    end: str = END_OF_TEXT
    """Name of the special token at the end of a document."""

    def __post_init__(self):
        if len(set(self.tokens)) != len(self.tokens):
            raise ValueError(f"{len(self.tokens) - len(set(self.tokens))} tokens occur twice")
        missing = 256 - sum(len(token) == 1 for token in self.tokens)
        if missing or not {self.start, self.end} <= set(self.special_tokens):
            raise ValueError(
                f"{missing} single bytes are missing; documents start with {self.start!r} and end with {self.end!r}, "
                f"and the special tokens are {tuple(self.special_tokens)}"
            )
        ids = set(self.special_tokens.values())
        if len(ids) < len(self.special_tokens) or min(ids) < len(self.tokens):
            raise ValueError(f"special tokens share ids with others: {dict(self.special_tokens)}")
        check_size(self.vocab_size)
        runs_of(self.pattern)

    @property
    def vocab_size(self) -> int:
        return 1 + max(self.special_tokens.values())

    @property
    def bos_id(self) -> int:
        return self.special_tokens[self.start]

    @property
    def _own_eos_ids(self) -> frozenset[int]:
        return frozenset((self.special_tokens[self.start], self.special_tokens[self.end]))

    @functools.cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(b"gristmill byte-level BPE 2")
        special = sorted(f"{id} {name}".encode() for name, id in self.special_tokens.items())
        for group in ([self.pattern.encode()], self.tokens, special, [self.start.encode(), self.end.encode()]):
            digest.update(len(group).to_bytes(8, "little"))
            for item in group:
                digest.update(len(item).to_bytes(8, "little") + item)
        return digest.hexdigest()

    @functools.cached_property
    def ranks(self) -> dict[bytes, int]:
        """{bytes of a token: its id}, without special tokens."""
        return {token: rank for rank, token in enumerate(self.tokens)}

    @functools.cached_property
    def _encoding(self):
        import tiktoken

        return tiktoken.Encoding(
            f"gristmill-{self.fingerprint[:12]}",
            pat_str=self.pattern,
            mergeable_ranks=self.ranks,
            special_tokens=dict(self.special_tokens),
        )

    @functools.cached_property
    def _bytes(self) -> dict[int, bytes]:
        unused = dict.fromkeys(range(len(self.tokens), self.vocab_size), b"")
        return dict(enumerate(self.tokens)) | unused | {id: name.encode() for name, id in self.special_tokens.items()}

    def settings(self) -> dict[str, object]:
        special = dict(self.special_tokens)
        return {"pattern": self.pattern, "special_tokens": special, "start": self.start, "end": self.end}

    def files(self) -> dict[str, bytes]:
        return {RANKS: write_ranks(self.tokens), HUGGING_FACE: write_hugging_face(self)}

    @classmethod
    def from_files(cls, folder: Path, settings: Mapping) -> "BytePairTokenizer":
        tokens = read_ranks(read_bounded(file_inside(folder, RANKS), MOST_TOKENIZER_BYTES))
        special = {str(name): int(id) for name, id in settings["special_tokens"].items()}
        found = cls(settings["pattern"], tokens, settings["start"], settings["end"], special_tokens=special)
        if not found._is_known:
            with no_panic(f"the split pattern {found.pattern!r} cannot be compiled"):
                _ = found._encoding  # raises ValueError if the pattern is invalid
        return found

    def _encode(self, text: str) -> list[int]:
        """Raises UsageError if a custom split pattern skips part of the text or backtracks for too long."""
        if self._is_known and len(text) <= LONGEST_RUN:
            return self._encoding.encode_ordinary(text)
        if not self._is_known:
            check_text(self.pattern, text)
        with no_panic(f"the split pattern {self.pattern!r} backtracks too long over {text[:60]!r}…"):
            ids = [id for section in sections(text) for id in self._encoding.encode_ordinary(section)]
        if self._is_known:
            return ids
        if lost := len(whole_characters(text).encode()) - sum(len(self.tokens[id]) for id in ids):
            raise UsageError(
                f"the split pattern {self.pattern!r} does not match {lost} bytes of a text that begins with "
                f"{text[:60]!r}, which would be lost. End the pattern with an alternative for the rest, such as |\\s+|."
            )
        return ids

    def encode_array(self, text: str) -> np.ndarray:
        if len(text) <= LONGEST_RUN and self._is_known:
            with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate, which `encode` handles
                return self._encoding.encode_to_numpy(text, disallowed_special=())
        return super().encode_array(text)

    @functools.cached_property
    def _is_known(self) -> bool:
        """Whether the split pattern is a built-in one, which skips nothing."""
        return self.pattern in SPLIT_PATTERNS.values()

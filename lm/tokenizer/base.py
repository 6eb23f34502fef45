"""Base class of all tokenizers."""

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Tokenizer(ABC):
    """Converts text to token ids and back. Picklable; ids do not depend on the machine or the number of threads."""

    kind: ClassVar[str]
    """Name of the class in meta.json (files.py), such as "bpe"."""
    special_tokens: Mapping[str, int]
    """{name: id} of tokens that are not text. `encode` only produces them for names that the caller lists."""
    documents: int = 0
    """Number of documents that the tokenizer was trained on."""
    characters: int = 0
    """Number of characters that the tokenizer was trained on."""
    add_bos: bool = True
    """Whether prompts begin with bos_id, as documents do in training. False for imported models that add none."""
    stop_ids: tuple[int, ...] = ()
    """EOS ids of an imported model, in the model's order; if empty, `eos_ids` are the vocabulary's own."""
    chat_template: str = ""
    """Jinja template that writes conversations as text, or "". Rendered in a sandbox (lm/chat/template.py)."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids: the highest id plus one. Published vocabularies leave some ids below it unused."""

    @property
    def special_names(self) -> dict[int, str]:
        """{id: name} of `special_tokens`."""
        return {id: name for name, id in self.special_tokens.items()}

    @property
    @abstractmethod
    def bos_id(self) -> int:
        """Id of the token at the beginning of every document, in training and generation."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids at which generation ends; empty if the vocabulary does not mark the end of documents."""
        return frozenset(self.stop_ids) or self._own_eos_ids

    @property
    @abstractmethod
    def _own_eos_ids(self) -> frozenset[int]:
        """Ids that begin or end a document in this vocabulary."""

    @property
    def missing_bytes(self) -> bytes:
        """Bytes, ascending, that have no token in a byte-level vocabulary. `encode` rejects text that contains one."""
        return b""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, as 64 hex digits, of everything that determines the ids."""

    def encode(self, text: str, special: Collection[str] = ()) -> list[int]:
        """Return the token ids of `text`. Names of special tokens in it are plain text, except those listed in
        `special`, which become their ids; text between these is encoded as separate texts.

        Lone surrogates become U+FFFD. Raises ValueError if a name in `special` is not a special token, UsageError or
        InputError for a text that the vocabulary cannot encode.
        """
        if not special:
            return self._encode(text)
        if unknown := [name for name in special if name not in self.special_tokens]:
            known = ", ".join(self.special_tokens) or "none"
            raise ValueError(f"{unknown[0]!r} is not a special token of this vocabulary, which has {known}.")
        names = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))  # longest match first
        ids: list[int] = []
        for i, part in enumerate(re.split(f"({names})", text)):
            ids += [self.special_tokens[part]] if i % 2 else self._encode(part)
        return ids

    @abstractmethod
    def _encode(self, text: str) -> list[int]:
        """Return the ids of a text, in which names of special tokens are plain text."""

    @property
    @abstractmethod
    def _bytes(self) -> Mapping[int, bytes]:
        """{id: `token_bytes` of it} for every id."""

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of one token: its name if it is a special token, b"" for an unused id below vocab_size.
        Raises ValueError for an id outside the vocabulary."""
        try:
            return self._bytes[id]
        except KeyError:
            raise self.outside(id) from None

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Return the entries of meta.json that only this class has; `from_files` gets them as `settings`."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """Return {name: contents} of the files to save next to meta.json; deterministic."""

    @classmethod
    @abstractmethod
    def from_files(cls, folder: Path, settings: Mapping) -> "Tokenizer":
        """Load a tokenizer from its files in `folder` and the contents of meta.json, `settings`; the caller sets the
        fields that all classes have. Raises OSError, ValueError, KeyError or TypeError if they are damaged."""

    def encode_array(self, text: str) -> np.ndarray:
        """Return the ids of plain text as uint32 (tokens,); faster than converting the list of `encode`."""
        return np.array(self.encode(text), np.uint32)

    def prompt_ids(self, text: str) -> list[int]:
        """Return the ids of a prompt, with bos_id first if `add_bos` is set or the text has no tokens. Raises the
        errors of `encode`."""
        ids = self.encode(text)
        return [self.bos_id, *ids] if self.add_bos or not ids else ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, in order."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of the tokens, with special tokens as their names. Raises ValueError for an id outside the
        vocabulary."""
        try:
            return b"".join(map(self._bytes.__getitem__, ids))
        except KeyError as error:
            raise self.outside(error.args[0]) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the tokens, with U+FFFD for bytes that are not UTF-8, such as an incomplete character.
        Raises ValueError for an id outside the vocabulary."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def __reduce__(self):  # without cached properties, such as a library's object
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        return functools.partial(type(self), **values), ()

    def outside(self, id: int) -> ValueError:
        """Return the error for an id outside the vocabulary."""
        return ValueError(f"token id {id} is outside the vocabulary of {self.vocab_size} symbols")


MOST_SYMBOLS = 2**20
"""Maximum vocabulary size. The largest published ones have 901,629 (XLM-V) and 262,144 (Gemma)."""


def check_size(symbols: int) -> None:
    """Raise ValueError if a vocabulary has more than MOST_SYMBOLS ids: each takes memory, even if unused."""
    if symbols > MOST_SYMBOLS:
        raise ValueError(f"the highest token id is {symbols - 1:,}; the limit is {MOST_SYMBOLS - 1:,}")


def whole_characters(text: str) -> str:
    """Return the text with lone surrogates, which UTF-8 cannot encode, replaced by U+FFFD, and surrogate pairs joined
    into one character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text

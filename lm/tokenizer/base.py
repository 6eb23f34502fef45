"""What every tokenizer does, whatever its vocabulary is made of."""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Tokenizer(ABC):
    """Text <-> token ids. Picklable; equal ids for equal texts, on any machine and number of threads."""

    kind: ClassVar[str]
    """Its name in meta.json (files.py)."""
    special_tokens: Mapping[str, int]
    """Ids that stand for no text, by name. No text encodes to them unless that is asked for."""
    documents: int = 0
    """Documents that it was trained on."""
    characters: int = 0
    """Characters of text that it was trained on."""
    add_bos: bool = True
    """Whether a prompt begins with bos_id, as documents do in training. False for an imported model whose own tokenizer
    adds none."""
    stop_ids: tuple[int, ...] = ()
    """The EOS ids of an imported model, in its order; () for those of the vocabulary."""
    chat_template: str = ""
    """Jinja template of a conversation of an imported model; "" for none. It is stored and exported, not run."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """One more than the highest id. Published vocabularies leave some ids below it unused."""

    @property
    @abstractmethod
    def bos_id(self) -> int:
        """The id that heads every document, in training and in generation."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """The ids at which a text that is being generated ends; none, where documents are not told apart."""
        return frozenset(self.stop_ids) or self._own_eos_ids

    @property
    @abstractmethod
    def _own_eos_ids(self) -> frozenset[int]:
        """The ids that begin or end a document in this vocabulary."""

    @property
    def missing_bytes(self) -> bytes:
        """The bytes for which a byte-level vocabulary has no token, in rising order. `encode` refuses a text that needs
        one."""
        return b""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) over all that decides the ids."""

    @abstractmethod
    def encode(self, text: str, special: Collection[str] = ()) -> list[int]:
        """Token ids of `text`. The name of a special token in it is plain text, but for the names in `special`.

        Lone surrogates become U+FFFD. Raises ValueError for a name that is no special token's.
        """

    @property
    @abstractmethod
    def _bytes(self) -> Mapping[int, bytes]:
        """What `token_bytes` gives, of every id."""

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token: of a special one its name, of an unused id below vocab_size none.

        Raises ValueError for any other id.
        """
        try:
            return self._bytes[id]
        except KeyError:
            raise self.outside(id) from None

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """What meta.json says of it, beside size, counts and fingerprint."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """The files of its folder beside meta.json, by name: the same bytes for the same tokenizer."""

    @classmethod
    @abstractmethod
    def from_files(cls, folder: Path, settings: Mapping, documents: int, characters: int) -> "Tokenizer":
        """The tokenizer of `settings` and `files`. Raises OSError, ValueError, KeyError or TypeError for any damage."""

    def encode_array(self, text: str) -> np.ndarray:
        """`encode` of plain text, uint32 (tokens,): where that is wanted, it is quicker made."""
        return np.array(self.encode(text), np.uint32)

    def prompt_ids(self, text: str) -> list[int]:
        """The ids of a prompt, with bos_id first if `add_bos` or if the text has no ids. Raises as `encode`."""
        ids = self.encode(text)
        return [self.bos_id, *ids] if self.add_bos or not ids else ids

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[list[int]]:
        """`encode` of each text, in order, on `threads` threads."""
        from concurrent.futures import ThreadPoolExecutor

        if threads == 1 or len(texts) < 2:
            return [self.encode(text) for text in texts]
        self.encode("")  # what is made at first use is made here, once, and not by every thread
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.encode, texts))

    def encode_stream(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """`encode` of each text, one at a time, as they come."""
        return map(self.encode, texts)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`; special tokens decode to their names. Raises ValueError for an id of none."""
        try:
            return b"".join(map(self._bytes.__getitem__, ids))
        except KeyError as error:
            raise self.outside(error.args[0]) from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, U+FFFD where bytes are not UTF-8 (a cut through a character). Raises as decode_bytes."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of `ids` in pieces, as they come: together they are `decode(ids)`, and no piece ends in the middle
        of a character that the next ids may complete. Raises as decode_bytes."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for id in ids:
            if piece := decoder.decode(self.token_bytes(id)):
                yield piece
        if piece := decoder.decode(b"", final=True):
            yield piece

    def check_special(self, names: Collection[str]) -> None:
        """Raises ValueError unless each of `names` is a special token's."""
        if unknown := [name for name in names if name not in self.special_tokens]:
            known = ", ".join(self.special_tokens) or "none"
            raise ValueError(f"{unknown[0]!r} is no special token of this vocabulary, which has {known}.")

    def outside(self, id: int) -> ValueError:
        """The error for an id that stands for nothing."""
        return ValueError(f"token id {id} is outside the vocabulary of {self.vocab_size} symbols")


MOST_SYMBOLS = 2**20
"""Ids of a vocabulary. The largest published ones have 901,629 (XLM-V) and 262,144 (Gemma)."""


def check_size(symbols: int) -> None:
    """Raises ValueError for a vocabulary of more than MOST_SYMBOLS ids: each takes memory, used or not."""
    if symbols > MOST_SYMBOLS:
        raise ValueError(f"the highest token id is {symbols - 1:,}; at most {MOST_SYMBOLS - 1:,} is read")


def whole_characters(text: str) -> str:
    """`text` with lone surrogates, which no encoding of Unicode knows, made U+FFFD, and pairs of them one character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text

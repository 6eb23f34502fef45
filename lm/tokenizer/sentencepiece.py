"""sentencepiece (Kudo and Richardson 2018, arXiv:1808.06226): train models, and load existing ones."""

import functools
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lm.bounded import MOST_TOKENIZER_BYTES, read_bounded
from lm.config import END_OF_TEXT, TokenizerConfig
from lm.errors import UsageError
from lm.storage import file_inside
from lm.tokenizer.base import Tokenizer, whole_characters
from lm.tokenizer.bpe import TrainingText

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

MODEL = "tokenizer.model"
BLANK = "\u2581"
"""Character that stands for a space in pieces. Without `exact`, this character in a text decodes to a space too."""
LONGEST_SENTENCE = 4096  # characters: the trainer fails on words longer than 65,535
# The trainer reserves these characters: it would skip a sentence with one of the last two.
_RESERVED = re.compile("[\0\u2581\u2585]")
_TOO_SMALL = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")
_TOO_LARGE = re.compile(r"too high \(\d+\)\. Please set it to a value <= (\d+)")


@dataclass(frozen=True)
class SentencePieceTokenizer(Tokenizer):
    """A sentencepiece model, encoded by the sentencepiece library.

    Models of `train_sentencepiece` are lossless. Published models need not be. If a model prepends a space to every
    text (as Llama 2's does), the decoded text begins with that space, which sentencepiece's own `decode` removes, and
    byte counts derived from tokens are one too high per document. If it normalizes, decoding gives the normalized text;
    if it has no byte fallback, unknown characters decode to " ⁇ ".

    Special tokens are the control symbols, and the unknown piece if byte fallback ensures that no text encodes to it.
    """

    kind = "sentencepiece"
    model: bytes = field(repr=False)
    """Contents of a .model file."""
    exact: bool
    """Encode U+2581 as its bytes, so that it does not decode to a space; otherwise ids are exactly sentencepiece's."""

    @classmethod
    def from_model(cls, model: bytes, exact: bool = False) -> "SentencePieceTokenizer":
        """Load the contents of a .model file. Raises ValueError if they are not a model, or `exact` is set and it has
        no byte fallback; UsageError if it has neither BOS nor EOS to begin a document with."""
        processor = open_model(model)
        knows_all = processor.is_byte(processor.piece_to_id("<0x00>"))
        if exact and not knows_all:
            raise ValueError("a model without byte fallback cannot be lossless")
        if max(processor.bos_id(), processor.eos_id()) < 0:
            raise UsageError(
                "the sentencepiece model marks neither the beginning nor the end of a text (bos_id and eos_id are "
                "-1), so no token could begin a document. Train the model with --bos_id=1, or use another."
            )
        special = {
            processor.id_to_piece(id): id
            for id in range(processor.vocab_size())
            if processor.is_control(id) or (processor.is_unknown(id) and knows_all)
        }
        return cls(model, exact, special_tokens=special)

    @functools.cached_property
    def _processor(self) -> "SentencePieceProcessor":
        return open_model(self.model)

    @property
    def vocab_size(self) -> int:
        return self._processor.vocab_size()

    @property
    def bos_id(self) -> int:
        bos = self._processor.bos_id()
        return bos if bos >= 0 else self._processor.eos_id()

    @property
    def _own_eos_ids(self) -> frozenset[int]:
        return frozenset(id for id in (self._processor.bos_id(), self._processor.eos_id()) if id >= 0)

    @functools.cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(b"gristmill sentencepiece 1, exact %d\n" % self.exact + self.model).hexdigest()

    @functools.cached_property
    def _blank_bytes(self) -> list[int]:
        return [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in BLANK.encode()]

    @functools.cached_property
    def _bytes(self) -> dict[int, bytes]:
        """{id: bytes}. The unknown piece has the bytes that sentencepiece decodes it to."""
        processor = self._processor

        def spell(id: int) -> bytes:
            piece = processor.id_to_piece(id)
            if piece in self.special_tokens:
                return piece.encode()
            if processor.is_byte(id):
                return bytes.fromhex(piece.removeprefix("<0x").removesuffix(">"))
            if processor.is_unused(id):
                return b""
            if processor.is_unknown(id):
                return processor.decode([id]).encode()
            return piece.replace(BLANK, " ").encode()

        return {id: spell(id) for id in range(self.vocab_size)}

    def settings(self) -> dict[str, object]:
        return {"exact": self.exact}

    def files(self) -> dict[str, bytes]:
        return {MODEL: self.model}

    @classmethod
    def from_files(cls, folder: Path, settings: Mapping) -> "SentencePieceTokenizer":
        model = read_bounded(file_inside(folder, MODEL), MOST_TOKENIZER_BYTES)
        return cls.from_model(model, settings["exact"] is True)

    def _encode(self, text: str) -> list[int]:
        text = whole_characters(text)
        if not self.exact or BLANK not in text:
            return self._processor.encode(text)
        first, *others = text.split(BLANK)
        ids = self._processor.encode(first)
        for part in others:
            ids += self._blank_bytes
            if part:
                ids += self._processor.encode(part)
        return ids


def open_model(model: bytes) -> "SentencePieceProcessor":
    """Load the contents of a .model file with the sentencepiece library. Raises ValueError if they are not a model."""
    from sentencepiece import SentencePieceProcessor

    try:
        if not model:
            raise RuntimeError("there is nothing in it")  # sentencepiece would accept b"" and wait for a later load
        return SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ValueError(f"{len(model)} bytes are not a sentencepiece model: {error}") from error


def train_sentencepiece(texts: Iterable[str], config: TokenizerConfig) -> SentencePieceTokenizer:
    """Train a lossless model of exactly config.vocab_size pieces.

    Text is not normalized, and characters outside the vocabulary become their UTF-8 bytes. Piece 0 is <unk>, which no
    text encodes to; 1 begins documents; 2 to 257 are the bytes. As in Llama (arXiv:2302.13971), digits are separate
    pieces and runs of spaces may be pieces. sentencepiece reserves the tab, so it is always a byte.

    The same texts give the same model in any order, unless train_characters truncates them. All text is held in memory.
    Raises UsageError if the texts have too few pieces or too many characters for the vocabulary.
    """
    from sentencepiece import SentencePieceTrainer

    training, model = TrainingText(texts, config.train_characters), io.BytesIO()
    failures: list[BaseException] = []

    def read() -> Iterator[str]:
        try:
            for text in training:
                yield from sentences(whole_characters(text))
        except BaseException as failure:  # sentencepiece would turn it into a RuntimeError
            failures.append(failure)
            raise

    try:
        SentencePieceTrainer.train(
            sentence_iterator=read(),
            model_writer=model,
            model_type=config.algorithm.removeprefix("sentencepiece_"),
            vocab_size=config.vocab_size,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            max_sentence_length=4 * LONGEST_SENTENCE,  # bytes; longer ones would be skipped silently
            num_threads=1,  # the unigram model's sums depend on it
            unk_id=0,
            bos_id=1,
            eos_id=-1,
            pad_id=-1,
            bos_piece=END_OF_TEXT,
            minloglevel=2,
        )
    except RuntimeError as error:
        if failures:
            raise failures[0] from None
        training.check(config)
        raise explained(error, training, config) from error
    found = SentencePieceTokenizer.from_model(model.getvalue(), True)
    return replace(found, documents=training.documents, characters=training.characters)


def sentences(text: str) -> Iterator[str]:
    """Split a text into training sentences: at characters that sentencepiece reserves, which are removed, and into
    parts of at most LONGEST_SENTENCE characters, after a line end, else before a space, else anywhere."""
    for part in _RESERVED.split(text):
        start = 0
        while start < len(part):
            stop = start + LONGEST_SENTENCE
            if stop < len(part):
                line, blank = part.rfind("\n", start, stop) + 1, part.rfind(" ", start + 1, stop)
                stop = line if line > start else blank if blank > start else stop
            yield part[start:stop]
            start = stop


def explained(error: RuntimeError, training: TrainingText, config: TokenizerConfig) -> UsageError:
    """Convert an error of sentencepiece's trainer to a UsageError with the remedy."""
    asked = f"tokenizer.vocab_size = {config.vocab_size}"
    found = f"{training.characters} characters in {training.documents} documents"
    if least := _TOO_SMALL.search(str(error)):
        return UsageError(
            f"{asked} is too small for {config.algorithm}: 256 bytes, 2 special symbols and the characters that make "
            f"up 99.95 % of {found} are {least[1]} symbols. Set vocab_size to {least[1]} or more."
        )
    if most := _TOO_LARGE.search(str(error)):
        return UsageError(
            f"{asked} is too large for {config.algorithm}: {found} have {most[1]} pieces. Set vocab_size to {most[1]} "
            "or less, or train on more text."
        )
    return UsageError(
        f"{config.algorithm} cannot train {asked} on {found}: {error}. Train on more text, or set tokenizer.algorithm "
        "= bpe."
    )

"""A tokenizer.json that is encoded by Hugging Face's tokenizers library, for vocabularies that are not byte-level
tokens followed by special tokens, such as SmolLM2's (special tokens at 0 to 16) and Llama 2's."""

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.bounded import MOST_TOKENIZER_BYTES, parse_json, read_bounded
from lm.errors import UsageError, shown
from lm.storage import file_inside
from lm.tokenizer.base import Tokenizer, check_size, whole_characters
from lm.tokenizer.encoding import no_panic
from lm.tokenizer.hugging_face.reading import check_expressions, demand, document_names, heading, refusal
from lm.tokenizer.hugging_face.writing import BYTE_LETTERS, BYTE_OF, spelled_bytes
from lm.tokenizer.pattern_cost import check_text

if TYPE_CHECKING:
    import tokenizers

FILE = "tokenizer.json"
BLANK = "\u2581"
"""Character that stands for a space in pieces of vocabularies that are not byte-level."""
KEEPING = ("ByteLevel", "Digits", "Metaspace", "Punctuation", "Split")
"""Pre-tokenizer steps that split text and, by default, remove nothing."""
NORMALISING = ("NFC", "Prepend", "Replace")
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
PROBE = "".join(map(chr, range(256))) + "a" * 64 + " " * 64 + "1" * 64 + "! aA1\n" * 16 + "\u4e00\u0301\U0001f600"
"""Text with every byte and some runs, encoded once when a file is loaded, to find files that fail only then."""


@dataclass(frozen=True)
class LibraryTokenizer(Tokenizer):
    """A tokenizer.json: byte-level BPE, or BPE or unigram pieces with byte fallback (Llama 2's).

    A byte-level vocabulary may lack some bytes, as SmolLM2's lacks 21 (`missing_bytes`). The library drops such bytes
    silently; here, encoding such a text raises UsageError.

    Ids are the library's. If the file prepends a space to every text, as Llama 2's does, the decoded text begins with
    it; if it normalizes, decoding gives the normalized text.
    """

    kind = "hugging_face"
    contents: bytes = field(repr=False)
    """Contents of tokenizer.json."""
    start: str
    """Name of the special token at the beginning of a document."""
    end: str
    """Name of the special token at the end of a document."""

    @classmethod
    def from_json(cls, contents: bytes, start: str = "", end: str = "") -> "LibraryTokenizer":
        """Load the contents of a tokenizer.json; `start` and `end` are as in `read_hugging_face`. Raises UsageError,
        with the field and its value, if encoding could lose text; ValueError, KeyError, TypeError or AttributeError if
        the file is damaged."""
        found = parse_json(contents)
        demand(found["model"], "type", "BPE", "Unigram", path="model.")
        demand(found["model"], "dropout", None, 0, path="model.")
        demand(found["model"], "continuing_subword_prefix", None, "", path="model.")
        demand(found["model"], "end_of_word_suffix", None, "", path="model.")
        expressions = check_steps(found)
        added = found.get("added_tokens") or []
        for token in added:
            if not token["special"]:
                for edge in ("lstrip", "rstrip"):
                    demand(token, edge, False, path=f"added_tokens: {token['content']!r}.")
        names = [token["content"] for token in added if token["special"]]
        start, end = document_names(dict.fromkeys(names, 0), start or heading(found.get("post_processor")), end)
        library = open_library(contents)
        ids = library.get_vocab(with_added_tokens=True)
        check_size(1 + max(ids.values()))
        special = {name: ids[name] for name in names}  # the file may give other ids
        made = cls(contents, start, end, special_tokens=special)
        vars(made).update(_library=library, _ids=ids, _expressions=expressions)  # each takes a second to build
        with made._checked():  # the library rejects some files only when encoding
            library.encode(PROBE, add_special_tokens=False)
        return made

    @functools.cached_property
    def _library(self) -> "tokenizers.Tokenizer":
        return open_library(self.contents)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return self._library.get_vocab(with_added_tokens=True)

    @functools.cached_property
    def vocab_size(self) -> int:
        return 1 + max(self._ids.values())

    @functools.cached_property
    def missing_bytes(self) -> bytes:
        if not is_byte_level(json.loads(self.contents)):
            return b""
        return bytes(byte for byte, letter in enumerate(BYTE_LETTERS) if letter not in self._ids)

    @property
    def bos_id(self) -> int:
        return self.special_tokens[self.start]

    @property
    def _own_eos_ids(self) -> frozenset[int]:
        return frozenset((self.special_tokens[self.start], self.special_tokens[self.end]))

    @functools.cached_property
    def fingerprint(self) -> str:
        ordered = json.dumps(json.loads(self.contents), sort_keys=True).encode()
        head = f"gristmill hugging_face 1\n{self.start}\n{self.end}\n".encode()
        return hashlib.sha256(head + ordered).hexdigest()

    @functools.cached_property
    def _bytes(self) -> dict[int, bytes]:
        contents = json.loads(self.contents)
        byte_level = is_byte_level(contents)
        added = {token["content"] for token in contents.get("added_tokens") or []}

        def spell(piece: str) -> bytes:
            if piece in added:
                return piece.encode()
            if byte_level:
                return spelled_bytes(piece) if set(piece) <= BYTE_OF.keys() else piece.encode()
            byte = BYTE.fullmatch(piece)
            return bytes.fromhex(byte[1]) if byte else piece.replace(BLANK, " ").encode()

        return dict.fromkeys(range(self.vocab_size), b"") | {id: spell(piece) for piece, id in self._ids.items()}

    def settings(self) -> dict[str, object]:
        return {"start": self.start, "end": self.end}

    def files(self) -> dict[str, bytes]:
        return {FILE: self.contents}

    @classmethod
    def from_files(cls, folder: Path, settings: Mapping) -> "LibraryTokenizer":
        contents = read_bounded(file_inside(folder, FILE), MOST_TOKENIZER_BYTES)
        return cls.from_json(contents, settings["start"], settings["end"])

    @functools.cached_property
    def _expressions(self) -> tuple[str, ...]:
        return check_expressions(json.loads(self.contents))

    @contextlib.contextmanager
    def _checked(self, *texts: str) -> Generator[None]:
        """Raise UsageError if the library could backtrack too long over a text, fails or panics; it raises plain
        Exceptions."""
        for text in texts:
            for pattern in self._expressions:
                check_text(pattern, text)
        failed = f"the tokenizers library cannot encode {shown(texts[0][:60]) if texts else 'nothing'}"
        try:
            with no_panic(failed):
                yield
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"{failed} ({error})") from error

    def _encode(self, text: str) -> list[int]:
        """Raises UsageError for a text that contains one of `missing_bytes`."""
        text = whole_characters(text)
        self.check_bytes(text)
        with self._checked(text):
            return self._library.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        whole = [whole_characters(text) for text in texts]
        for text in whole:
            self.check_bytes(text)
        with self._checked(*whole):
            return [one.ids for one in self._library.encode_batch(whole, add_special_tokens=False)]

    def check_bytes(self, text: str) -> None:
        """Raise UsageError, with the position, if a text contains one of `missing_bytes`."""
        if not self.missing_bytes:
            return
        normalizer = self._library.normalizer
        data = (normalizer.normalize_str(text) if normalizer else text).encode()
        if len(data.translate(None, self.missing_bytes)) == len(data):
            return
        position = next(i for i, byte in enumerate(data) if byte in self.missing_bytes)
        before = data[:position].decode(errors="ignore")
        character = data.decode()[len(before)]
        raise UsageError(
            f"Character {len(before):,} of the text, {character!r} (U+{ord(character):04X}), needs the byte "
            f"0x{data[position]:02X}, which is not in this vocabulary. Remove the character, or use a tokenizer that "
            "has all 256 bytes."
        )


def open_library(contents: bytes) -> "tokenizers.Tokenizer":
    """Load the contents of a tokenizer.json with the library. Raises ValueError if the library rejects them."""
    import tokenizers

    try:
        with no_panic("the tokenizers library cannot read it"):
            found = tokenizers.Tokenizer.from_str(contents.decode())
    except UsageError:
        raise
    except Exception as error:  # the library raises plain Exceptions
        raise ValueError(f"the tokenizers library refuses it: {error}") from error
    found.no_truncation()
    found.no_padding()
    found.encode_special_tokens = True  # treat their names in a text as plain text
    return found


def parts_of(step: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """Return the steps of a normalizer or pre-tokenizer: of a Sequence the steps in its field `name`, for any other
    only `step`; [] for None."""
    if not step:
        return []
    return [one for part in step[name] for one in parts_of(part, name)] if step["type"] == "Sequence" else [step]


def check_steps(contents: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the regular expressions in a tokenizer.json's normalizer and pre-tokenizer.

    Raises UsageError if encoding could silently lose text: a step removes characters, or the vocabulary cannot
    represent every byte. A byte-level vocabulary may lack bytes, because `encode` refuses texts that contain them. Also
    raises UsageError if an expression can backtrack too long.
    """
    expressions = check_expressions(contents)
    vocabulary = dict(contents["model"]["vocab"])  # a unigram model's is a list of (piece, score)
    if not is_byte_level(contents):
        if not contents["model"].get("byte_fallback"):
            reason = "only a byte-level vocabulary (ByteLevel), or one with byte_fallback, can encode any text"
            raise refusal("pre_tokenizer", contents.get("pre_tokenizer"), reason)
        wanted = [f"<0x{byte:02X}>" for byte in range(256)]
        if missing := [letter for letter in wanted if letter not in vocabulary]:
            raise refusal(
                "model.vocab", missing[0], "this byte is not in the vocabulary, so texts with it would lose it"
            )
    for step in parts_of(contents.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] not in KEEPING or step.get("behavior") == "Removed":
            raise refusal(
                "pre_tokenizer", step, f"only {', '.join(KEEPING)} that remove nothing preserve the whole text"
            )
    for step in parts_of(contents.get("normalizer"), "normalizers"):
        blank = step["type"] != "Replace" or (step["pattern"], step["content"]) == ({"String": " "}, BLANK)
        if step["type"] not in NORMALISING or not blank:
            raise refusal("normalizer", step, f"only {', '.join(NORMALISING)} (of spaces) preserve the whole text")
    return expressions


def is_byte_level(contents: Mapping[str, Any]) -> bool:
    """Return whether the tokens in a tokenizer.json are written in BYTE_LETTERS."""
    return any(one["type"] == "ByteLevel" for one in parts_of(contents.get("pre_tokenizer"), "pretokenizers"))

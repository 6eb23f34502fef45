"""Parse and write sentencepiece's .model file: pieces with scores and kinds, and the settings that determine how text
is split into pieces.

The file is one message in protobuf's wire format (protobuf.dev/programming-guides/encoding); field numbers are those of
sentencepiece's sentencepiece_model.proto. The module that sentencepiece ships for it requires one version of protobuf,
so the few fields that matter are parsed here.
"""

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Values of Piece.kind; llama.cpp uses the same numbers."""
UNIGRAM, BPE = 1, 2
"""Values of SentencePieceModel.kind."""
KINDS = {UNIGRAM: "unigram", BPE: "bpe", 3: "word", 4: "char"}


class Piece(NamedTuple):
    """One symbol of the vocabulary; its id is its index in `pieces`."""

    text: str
    """Text of the piece, with U+2581 for a space."""
    score: float
    """Log-probability (unigram), or priority of its merge: the highest is first (BPE)."""
    kind: int = NORMAL
    """NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED or BYTE."""


@dataclass(frozen=True)
class SentencePieceModel:
    """Contents of a .model file."""

    pieces: tuple[Piece, ...]
    kind: int
    """UNIGRAM, BPE, or another key of KINDS."""
    dummy_prefix: bool
    """Whether a space is prepended to every text."""
    shortens: bool
    """Whether runs of spaces are collapsed, and spaces at both ends removed."""
    charsmap: bytes
    """Normalization table; empty if text is not normalized."""
    unk_id: int
    bos_id: int
    eos_id: int
    """unk_id, bos_id and eos_id are -1 if the model has no such piece."""


def fields_of(message: bytes) -> dict[int, list[Any]]:
    """Return {field number: its values} of a protobuf message: integers, or bytes for all other types. Raises
    IndexError or KeyError if the message is damaged."""
    found: dict[int, list[Any]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = number()
        if (kind := tag & 7) == 0:
            value: Any = number()
        else:
            length = {1: 8, 5: 4}[kind] if kind != 2 else number()
            value, at = message[at : at + length], at + length
        found.setdefault(tag >> 3, []).append(value)
    return found


def read_model(data: bytes) -> SentencePieceModel:
    """Parse a .model file that sentencepiece has already accepted."""
    parts = fields_of(data)
    # As in protobuf: messages of one field are merged, and the last of several values counts.
    trainer, rules = (fields_of(b"".join(parts.get(number, []))) for number in (2, 3))
    found = [fields_of(piece) for piece in parts[1]]
    pieces = tuple(
        Piece(one[1][0].decode(), struct.unpack("<f", one[2][0])[0] if 2 in one else 0.0, one.get(3, [NORMAL])[0])
        for one in found
    )
    signed = lambda value: value - 2**64 if value >= 2**63 else value
    return SentencePieceModel(
        pieces=pieces,
        kind=trainer.get(3, [UNIGRAM])[-1],
        dummy_prefix=bool(rules.get(3, [1])[-1]),
        shortens=bool(rules.get(4, [1])[-1]),
        charsmap=rules.get(2, [b""])[-1],
        unk_id=signed(trainer.get(40, [0])[-1]),
        bos_id=signed(trainer.get(41, [1])[-1]),
        eos_id=signed(trainer.get(42, [2])[-1]),
    )


def write_model(model: SentencePieceModel) -> bytes:
    """Return the bytes of a .model file for a model that does not normalize: `charsmap` is not written."""
    pieces = b"".join(
        field(1, field(1, piece.text.encode()) + b"\x15" + struct.pack("<f", piece.score) + field(3, piece.kind))
        for piece in model.pieces
    )
    has_bytes = any(piece.kind == BYTE for piece in model.pieces)
    names = [(45, model.unk_id), (46, model.bos_id), (47, model.eos_id)]
    trainer = b"".join(
        [
            field(3, model.kind), field(4, len(model.pieces)), field(35, int(has_bytes)),
            field(40, model.unk_id), field(41, model.bos_id), field(42, model.eos_id), field(43, -1),
            *(field(number, model.pieces[id].text.encode()) for number, id in names if id >= 0),
        ]
    )  # fmt: skip
    rules = field(1, b"identity") + field(3, int(model.dummy_prefix)) + field(4, int(model.shortens)) + field(5, 1)
    return pieces + field(2, trainer) + field(3, rules)


def field(number: int, value: int | bytes) -> bytes:
    """Encode one field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value % 2**64)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """Encode an integer as a protobuf varint: seven bits per byte, low bits first."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])

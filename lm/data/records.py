"""SequenceRecord <-> bytes, and the manifest of a folder of records: the contract between data_prep, which writes them,
and lm, which trains on them. No JAX here.

A record is `length + 1` consecutive tokens of a stream of documents, in which <|endoftext|> begins each document. The
last token of a record is the first token of the next one, so every token except the first of the stream is a target
once. The <|endoftext|> of a document is also the target that ends the previous one. With packing "best_fit", a training
record has whole documents, or a part of a longer one, and the target of their last token; the rest is padding. Layout,
little-endian:

    magic "GMR1" | dtype code u8 (2: uint16, 4: uint32) | loss mask u8 (0: none, 1) | 2 zero bytes | length u32
    | valid u32 | segments u32 | tokens (length + 1) of the dtype, zero-padded to a multiple of 4 bytes
    | segment starts, segments x u32 | document ids, segments x u64
    | loss mask, 1 bit per token, if any | crc32 u32 of all bytes before
"""

import dataclasses
import json
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from lm.errors import MALFORMED, InputError, UsageError
from lm.storage import Place, relative_name, sizes_of

MAGIC = b"GMR1"
HEADER = struct.Struct("<4sBB2xIII")
DTYPES = {"uint16": 2, "uint32": 4}


@dataclass(frozen=True)
class SequenceRecord:
    """Fixed-length sequence of consecutive tokens, with the documents that they come from."""

    tokens: np.ndarray
    """(length + 1,) uint16 or uint32; zeros after the first `valid`."""
    valid: int
    """Number of real tokens; with packing "concatenate", less than length + 1 only in the last record of a shard."""
    segment_starts: np.ndarray
    """(segments,) uint32, ascending: offset of each document in `tokens`. The first is 0, even if its document started
    earlier."""
    document_ids: np.ndarray
    """(segments,) uint64: document of each segment, as a row of tokens/documents/ (`document_tables`)."""
    trained: np.ndarray | None = None
    """(length + 1,) bool: the tokens that count as targets, of a conversation; None: all."""

    @property
    def length(self) -> int:
        """Number of input tokens: one less than the number of tokens."""
        return len(self.tokens) - 1


def mask_bytes(length: int) -> int:
    """Size in bytes of the loss mask of a record of `length` input tokens."""
    return -(-(length + 1) // 8)


def record_bytes(length: int, dtype: str, segments: int) -> int:
    """Return the bytes of a serialized record with `length` input tokens of `dtype` and `segments` documents, without
    loss mask."""
    tokens = (length + 1) * DTYPES[dtype]
    return HEADER.size + tokens + (-tokens % 4) + 12 * segments + 4


def to_bytes(record: SequenceRecord) -> bytes:
    """Serialize a record, in the layout of the module docstring. Raises ValueError if its fields are inconsistent."""
    dtype = record.tokens.dtype
    if dtype != np.uint16 and dtype != np.uint32:
        raise ValueError(f"tokens are {dtype}; records hold {' or '.join(DTYPES)}")
    starts = np.asarray(record.segment_starts, "<u4")
    ids = np.asarray(record.document_ids, "<u8")
    if not 1 <= record.valid <= len(record.tokens):
        raise ValueError(f"valid = {record.valid}, but the record has {len(record.tokens)} tokens")
    if len(starts) != len(ids) or not len(starts) or starts[0] != 0 or np.any(starts[1:] <= starts[:-1]):
        raise ValueError(
            f"{len(starts)} segment starts and {len(ids)} document ids; starts must rise from 0: {starts[:8]}"
        )
    if starts[-1] >= record.valid:
        raise ValueError(f"a segment starts at {starts[-1]}, after the {record.valid} valid tokens")
    if record.trained is not None and len(record.trained) != len(record.tokens):
        raise ValueError(f"the loss mask has {len(record.trained)} values for {len(record.tokens)} tokens")
    tokens = record.tokens.astype(f"<u{dtype.itemsize}", copy=False).tobytes()
    tokens += b"\0" * (-len(tokens) % 4)
    head = HEADER.pack(MAGIC, dtype.itemsize, record.trained is not None, record.length, record.valid, len(starts))
    mask = b"" if record.trained is None else np.packbits(record.trained).tobytes()
    body = head + tokens + starts.tobytes() + ids.tobytes() + mask
    return body + struct.pack("<I", zlib.crc32(body))


def from_bytes(data: bytes) -> SequenceRecord:
    """Parse a record written by `to_bytes`. Raises InputError if the bytes are damaged or not a record."""
    if len(data) < HEADER.size + 4 or data[:4] != MAGIC:
        raise InputError(f"Not a sequence record: {len(data)} bytes that begin with {data[:4]!r}, not {MAGIC!r}.")
    (stored,) = struct.unpack("<I", data[-4:])
    computed = zlib.crc32(memoryview(data)[:-4])
    if stored != computed:
        raise InputError(f"A damaged sequence record: its checksum is {computed:08x} instead of {stored:08x}.")
    _, width, masked, length, valid, segments = HEADER.unpack_from(data)
    if width not in DTYPES.values():
        raise InputError(f"A sequence record with tokens of {width} bytes; only 2 and 4 are supported.")
    token_bytes = (length + 1) * width
    starts_at = HEADER.size + token_bytes + (-token_bytes % 4)
    ids_at = starts_at + 4 * segments
    mask_at = ids_at + 8 * segments
    end = mask_at + (mask_bytes(length) if masked else 0)
    if masked > 1 or end + 4 != len(data):
        raise InputError(
            f"A damaged sequence record: {len(data)} bytes and loss mask {masked}, but its header asks for {end + 4} "
            "bytes and 0 or 1."
        )
    return SequenceRecord(
        tokens=np.frombuffer(data, f"<u{width}", length + 1, HEADER.size),
        valid=valid,
        segment_starts=np.frombuffer(data, "<u4", segments, starts_at),
        document_ids=np.frombuffer(data, "<u8", segments, ids_at),
        trained=np.unpackbits(np.frombuffer(data, np.uint8, end - mask_at, mask_at), count=length + 1).astype(bool)
        if masked else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Shard:
    """ArrayRecord file of sequence records."""

    file: str
    """File name, relative to the manifest."""
    records: int
    bytes: int
    """File size."""
    sha256: str
    """SHA-256 of the file, 64 hex digits."""
    documents: int
    """Number of documents; all are whole."""
    tokens: int
    """One more than the number of targets: with packing "concatenate", the tokens of the stream."""
    text_bytes: int
    """UTF-8 bytes of the documents' text."""


@dataclass(frozen=True)
class Split:
    """Shards of the training or validation split, and the totals of their documents, tokens, `text_bytes` and records
    (see Shard)."""

    documents: int
    tokens: int
    text_bytes: int
    records: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class DocumentTable:
    """Parquet file with one row per document: id, url, file, split, tokens, text_bytes."""

    file: str
    """File name, relative to the manifest."""
    rows: int
    """Number of documents."""
    bytes: int
    """File size."""
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Contents of tokens/manifest.json: shards, document tables, tokenizer."""

    tokenizer_fingerprint: str
    vocab_size: int
    """Number of symbols of the tokenizer; all tokens are below it."""
    record_length: int
    """Input tokens per record; a record has one token more."""
    token_dtype: str
    splits: dict[str, Split]
    """{name of the split, "train" or "val": its shards and totals}."""
    documents: tuple[DocumentTable, ...]
    """Document tables, in the order of document numbers."""
    withheld_documents: int = 0
    """Documents in neither split, because they have the URL or nearly the text of a held-out document."""
    repeats: int = 0
    """Repeated documents in the training split; they are included in its counts of documents and tokens. Not written if
    0."""
    packing: str = "concatenate"
    """How the records were filled: "concatenate"; "best_fit", only in the training split; or "conversations", best-fit
    in both splits. Not written if "concatenate"."""

    def is_packed(self, split: str) -> bool:
        """Return whether records of a split hold whole documents or conversations, not parts of a stream."""
        return self.packing == "conversations" or (split == "train" and self.packing == "best_fit")

    def to_json(self) -> str:
        fields = dataclasses.asdict(self)
        if not self.repeats:
            del fields["repeats"]
        if self.packing == "concatenate":
            del fields["packing"]
        return json.dumps(fields, indent=1) + "\n"


MANIFEST = "manifest.json"
HELD_OUT_KEYS = "held_out_keys.parquet"
"""Table of hashes of the held-out documents' URLs, texts and MinHash bands (data_prep/shards/held_out.py)."""


def document_tables(folder: Place) -> list[Place]:
    """Return the paths of the document tables in a folder of shards. Row n of their concatenation is document n. Raises
    InputError if the manifest is missing or damaged."""
    return [folder / table.file for table in read_manifest(folder).documents]


def read_manifest(folder: Place) -> Manifest:
    """Read the manifest of the shards in `folder`. Raises InputError if it is missing or damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"There are no token shards in {folder}: {MANIFEST} is missing. {MAKE_SHARDS}")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        for name, split in fields["splits"].items():
            shards = tuple(Shard(**shard) for shard in split["shards"])
            fields["splits"][name] = Split(**(split | {"shards": shards}))
        fields["documents"] = tuple(DocumentTable(**table) for table in fields["documents"])
        tables = (*fields["documents"], *(shard for split in fields["splits"].values() for shard in split.shards))
        for table in tables:
            relative_name(table.file, path)
        return Manifest(**fields)
    except MALFORMED as error:
        raise InputError(f"{path} is damaged: {type(error).__name__}: {error}. {MAKE_SHARDS}") from error


MAKE_SHARDS = "Delete that folder if it exists, and run: python -m launch.write_shards"


def check_request(
    manifest: Manifest, folder: Place, split: str, context_length: int, tokenizer_fingerprint: str | None
) -> None:
    """Raise UsageError if the shards lack the split, if their records are too short for the context length, or if they
    have another tokenizer (None: any). Raise InputError if a file is missing or has the wrong size."""
    if split not in manifest.splits:
        raise UsageError(f"There is no split {split!r} in {folder}. Choose one of {', '.join(manifest.splits)}.")
    if context_length > manifest.record_length:
        raise UsageError(
            f"A context of {context_length} tokens is longer than the records of {manifest.record_length} in {folder}. "
            f"Choose a context_length of at most {manifest.record_length}, or write shards with a larger record_length."
        )
    if manifest.is_packed(split) and manifest.record_length % context_length:
        raise UsageError(
            f"A context of {context_length} tokens does not divide the packed records of {manifest.record_length} in "
            f"{folder} (shards.packing = best_fit). Choose a context_length that divides the record length."
        )
    if tokenizer_fingerprint not in (None, manifest.tokenizer_fingerprint):
        raise UsageError(
            f"The shards in {folder} were written with tokenizer {manifest.tokenizer_fingerprint}, but this "
            f"experiment's is {tokenizer_fingerprint}. Write them again: python -m launch.write_shards. (Runs that "
            "share shards need the same tokenizer: give the tokenizer/ of one run as tokenizer.load of the other.)"
        )
    shards = manifest.splits[split].shards
    sizes = sizes_of(folder, [shard.file for shard in shards])
    for shard in shards:
        path, size = folder / shard.file, sizes[shard.file]
        if size != shard.bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            raise InputError(
                f"{path} {found}, but {MANIFEST} says {shard.bytes} bytes. "
                "Delete the folder and write the shards again: python -m launch.write_shards"
            )

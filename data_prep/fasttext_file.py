"""Load fastText models from files, after verifying their SHA-256 or checking them.

fastText does not validate models: a damaged one ends in SIGSEGV, SIGFPE, arbitrarily large allocations or an endless
loop. So a file with the SHA-256 in the config is loaded directly. For any other file, the whole structure is compared
with the file's size, and then a separate process with limited memory and time loads it and predicts.

The format is that of fastText 0.9 (facebookresearch/fastText: src/fasttext.cc, dictionary.cc, densematrix.cc,
quantmatrix.cc, productquantizer.cc), version 12 and, without subwords, 11; all little-endian.
"""

import mmap
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Never

from lm.errors import InputError
from lm.storage import file_sha256

MAGIC, VERSIONS, SUPERVISED, LOSSES = 793_712_314, (11, 12), 3, (1, 2, 3, 4)
KSUB = 256
"""Centroids of a product quantizer."""
MAX_DIMENSIONS, MAX_SUBWORD, MAX_WORD_NGRAMS, MAX_WORD_BYTES = 1 << 16, 64, 32, 1 << 14
"""Larger than in any known model. Beyond them, time and memory would be quadratic in the length of words and texts."""
MOST_COUNTED = 10**15
"""fastText's value for infinity when it builds the tree of labels."""
CHILD = """
import resource, sys
memory, seconds = map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import fasttext
model = fasttext.load_model(sys.argv[1])
for line in ("a", "Some words, of which the model may know a few: 12 \\u00e9\\u4e2d"):
    labels, scores = model.predict(line, k=-1, threshold=-1.0)
    assert len(labels) == len(scores) and all(0 <= score <= 1.01 for score in scores), "a score is no probability"
assert labels, "there is no label"
"""
CHILD_BYTES, CHILD_SECONDS = 1 << 30, 60
"""Memory and CPU time of the checking process, in addition to four times the file's size, and one second per 10 MB."""
WAIT_SECONDS = 3600
"""Timeout of a process that does not even use its CPU time, e.g. while it waits for a disk."""


class ModelError(Exception):
    """Defect of a model's file."""


def load_fasttext(path: Path, sha256: str, option: str, hash_option: str) -> Any:
    """Return the fastText model in a file. `option` and `hash_option` name the config fields of both values.

    Raises InputError if the SHA-256 differs from `sha256` or, if that is "", the file is not a valid model.
    """
    import fasttext

    try:
        if not path.is_file():
            raise ModelError("there is no such file")
        if sha256 and (found := file_sha256(path)) != sha256.lower():
            raise InputError(
                f"{path} has the SHA-256 {found}, but {hash_option} is {sha256}. Give the file that the config "
                f"names, or set {hash_option} to that of the file."
            )
        if not sha256:
            check_structure(path)
            check_in_process(path)
        return fasttext.load_model(str(path))
    except (ModelError, OSError, ValueError, RuntimeError, MemoryError) as error:
        hint = ""
        if path.is_file() and not sha256:
            hint = f" To use it without this check, set {hash_option} to {file_sha256(path)}."
        raise InputError(
            f"The fastText model {path} ({option}) cannot be used: {error}. Give a .bin or .ftz that fastText wrote."
            + hint
        ) from error


def check_in_process(path: Path) -> None:
    """Load the model in a separate process and predict with it. Raises ModelError."""
    size = path.stat().st_size
    given = CHILD_BYTES + 4 * size, CHILD_SECONDS + size // 10_000_000
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    memory = given[0] if hard == resource.RLIM_INFINITY else min(given[0], hard)
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    try:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(path), str(memory), str(given[1])],
            stdin=subprocess.DEVNULL, capture_output=True, env=os.environ | threads, timeout=WAIT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"it is not loaded after {WAIT_SECONDS:,} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        raise ModelError(
            f"a process of {memory:,} bytes and {given[1]:,} s of CPU time that loaded it ended with {how}"
            + (f": {said[-1][:200]}" if said else "")
        )


class Cursor:
    """Read numbers from a file in memory, in order."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at = data, 0

    def read(self, form: str) -> tuple:
        size = struct.calcsize("<" + form)
        self.skip(size, "a number")
        return struct.unpack_from("<" + form, self.data, self.at - size)

    def skip(self, size: int, what: str) -> None:
        if size < 0 or self.at + size > len(self.data):
            raise ModelError(f"{what} of {size:,} bytes at {self.at:,} would end behind the file's {len(self.data):,}")
        self.at += size


def refuse(what: str, found: object, wanted: object) -> Never:
    raise ModelError(f"{what} is {found}, where {wanted} is expected")


def check_structure(path: Path) -> None:
    """Check that all counts in a model's file fit each other and the file's size. Raises ModelError."""
    if not path.stat().st_size:
        raise ModelError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        walk(Cursor(data))


def walk(cursor: Cursor) -> None:
    magic, version = cursor.read("ii")
    if magic != MAGIC or version not in VERSIONS:
        refuse("its beginning", f"{magic}, version {version}", f"{MAGIC}, version {' or '.join(map(str, VERSIONS))}")
    dimensions, _, _, _, _, word_ngrams, loss, kind, buckets, minn, maxn, _ = cursor.read("12i")
    cursor.read("d")
    if version == 11:
        maxn = 0
    if kind != SUPERVISED or loss not in LOSSES:
        refuse("its kind and loss", f"{kind} and {loss}", f"a classifier ({SUPERVISED}) and one of {LOSSES}")
    for what, found, least, most in (
        ("the number of dimensions", dimensions, 1, MAX_DIMENSIONS),
        ("the length of word n-grams", word_ngrams, 0, MAX_WORD_NGRAMS),
        ("the length of subwords", maxn, 0, MAX_SUBWORD),
        ("the least length of subwords", minn, 0, MAX_SUBWORD),
        ("the number of buckets", buckets, 1 if maxn or word_ngrams > 1 else 0, 1 << 30),
    ):
        if not least <= found <= most:
            refuse(what, found, f"{least} to {most}")
    words, labels, pruned, chosen = walk_dictionary(cursor, minn, maxn)
    rows, quantized = walk_matrix(cursor, dimensions, None)
    expected = words + (pruned if pruned >= 0 else buckets)
    if rows != expected or (pruned >= 0 and not quantized):
        refuse("the number of rows of the input matrix", rows, expected)
    if any(not 0 <= row < pruned for row in chosen):
        refuse("the row of a bucket", "one that is not there", f"0 to {pruned - 1}")
    outputs, _ = walk_matrix(cursor, dimensions, quantized)
    if outputs != labels:
        refuse("the number of rows of the output matrix", outputs, f"{labels} labels")
    if cursor.at != len(cursor.data):
        refuse("the end of the model", cursor.at, f"that of the file, {len(cursor.data)}")


def walk_dictionary(cursor: Cursor, minn: int, maxn: int) -> tuple[int, int, int, list[int]]:
    """Return (words, labels, number of kept buckets or -1, their rows)."""
    size, words, labels, _, pruned = cursor.read("iiiqq")
    if words < 0 or labels < 1 or size != words + labels or size > len(cursor.data) // 10:
        refuse("the number of entries", f"{size} of {words} words and {labels} labels", "their sum, of 10 bytes each")
    subwords = total = 0
    for number in range(size):
        begin = cursor.at
        end = cursor.data.find(b"\0", begin, begin + MAX_WORD_BYTES)
        if end < 0:
            refuse(f"the length of entry {number}", f"more than {MAX_WORD_BYTES}", "less")
        cursor.at = end + 1
        count, kind = cursor.read("qb")
        if kind != (number >= words) or count < 1:
            refuse(f"the kind and count of entry {number}", f"{kind} and {count}", "words, then labels, 1 at least")
        total += count
        subwords += (end - begin + 2) * max(maxn - minn + 1, 0)
    if total >= MOST_COUNTED:
        refuse("the sum of all counts", total, f"less than {MOST_COUNTED}")
    if 4 * subwords > 32 * len(cursor.data) + (64 << 20):
        refuse("the number of subwords", subwords, "less than eight for each byte of the file")
    if not -1 <= pruned <= len(cursor.data) // 8:
        refuse("the number of buckets that were kept", pruned, "-1 or what the file has room for")
    chosen = [row for _ in range(max(pruned, 0)) for row in cursor.read("ii")[1:]]
    return words, labels, pruned, chosen


def walk_matrix(cursor: Cursor, dimensions: int, may_be_quantized: bool | None) -> tuple[int, bool]:
    """Return (rows, whether they are quantized); the output matrix is quantized only if the input matrix is."""
    (flag,) = cursor.read("B")
    if flag > 1:
        refuse("whether a matrix is quantized", flag, "0 or 1")
    quantized = bool(flag) and may_be_quantized is not False
    if not quantized:
        rows, columns = cursor.read("qq")
        if columns != dimensions or rows < 0:
            refuse("the size of a matrix", f"{rows} x {columns}", f"{dimensions} columns")
        cursor.skip(4 * rows * columns, "a matrix")
        return rows, False
    with_norms, rows, columns, codes = cursor.read("Bqqi")
    if columns != dimensions or with_norms > 1 or rows < 0:
        refuse("the size of a matrix", f"{rows} x {columns}", f"{dimensions} columns")
    cursor.skip(codes, "the codes of a matrix")
    parts = walk_quantizer(cursor, dimensions)
    if codes != rows * parts:
        refuse("the number of codes", codes, f"{rows} x {parts}")
    if with_norms:
        cursor.skip(rows, "the norms of a matrix")
        walk_quantizer(cursor, 1)
    return rows, True


def walk_quantizer(cursor: Cursor, dimensions: int) -> int:
    """Return the number of parts into which a vector is split."""
    found, parts, width, last = cursor.read("4i")
    fits = found == dimensions and 1 <= width <= dimensions and parts == -(-dimensions // width)
    if not fits or last != dimensions - (parts - 1) * width:
        refuse("a quantizer", f"{parts} parts of {width}, the last of {last}, for {found}", f"parts of {dimensions}")
    cursor.skip(4 * dimensions * KSUB, "centroids")
    return parts

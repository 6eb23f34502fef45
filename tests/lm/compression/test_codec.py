"""Compression is lossless, its size equals the model's cross-entropy, and damaged or foreign files are rejected."""

import dataclasses
import hashlib
import io
import math
import re
import subprocess
import sys
import time
import tracemalloc
import zlib
from itertools import chain
from typing import Any

import jax
import numpy as np
import pytest

from lm.compression.codec import compress, decompress, decompress_parts
from lm.compression.coder import decode, encode, most_tokens, usable_symbols
from lm.compression.container import CHUNK, DICTIONARY, DIGEST, MAGIC, Body, DamagedFileError, Header, packed_raw
from lm.compression.pieces import cut_pieces
from lm.compression.token_model import MOST_SEGMENTS, Layout, TokenModel, segments_for
from lm.errors import InputError
from lm.tokenizer import train_bpe
from tests.corpus import texts
from tests.hostile_files import hostile_file
from tests.lm.compression.models import CONFIG, EXPERIMENT, packer, soup, tokenizer
from tests.lm.model_configs import FAMILIES

SOUP = soup(900)
GROWTH = 150
"""Maximum growth of a file in bytes: a header, and the lengths of its pieces."""
HOSTILE = [*range(10), *range(15, 27)]
"""Numbers of files of every kind."""
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def mine():
    return packer()


@pytest.fixture(scope="module")
def packed(mine):
    made = compress(SOUP, mine, segments=4)
    assert made.tokens > 4 * 4 * CONFIG.context_length and made.raw_bytes < 10
    return made


def token_model(mine, tokens: int) -> TokenModel:
    return TokenModel(mine.model, CONFIG, mine.mesh, Layout(tokens, 4, CONFIG.context_length))


@pytest.mark.parametrize("number", HOSTILE)
def test_compression_is_lossless_for_hostile_files(number, mine):
    _, data = hostile_file(number, 1500)
    made = compress(data, mine, segments=4)
    assert decompress(made.data, mine, "x") == data
    assert len(made.data) <= len(data) + GROWTH


@pytest.mark.parametrize("number", HOSTILE)
def test_the_coder_is_lossless_also_for_files_that_xz_compresses_better(number, mine):
    tokens = cut_pieces(hostile_file(number, 300)[1], tokenizer()).tokens
    fresh = lambda: token_model(mine, len(tokens))
    if tokens:
        coded = encode(tokens, fresh(), tokenizer(), lambda done: None)
        assert [*chain.from_iterable(decode(coded.data, fresh(), tokenizer(), lambda done: None))] == tokens
        assert 8 * len(coded.data) < 1.01 * coded.bits + 64


@pytest.mark.parametrize(
    ("family", "scan"),
    [
        ("modern", True), pytest.param("gpt2", False, marks=SLOW), pytest.param("llama", False, marks=SLOW),
        pytest.param("llama", True, marks=SLOW), pytest.param("gpt2", True, marks=SLOW),
        pytest.param("modern", False, marks=SLOW),
    ],
)  # fmt: skip
def test_every_family_of_models_is_lossless(family, scan):
    config = dataclasses.replace(FAMILIES[family], vocab_size=512, initial_std=0.02, scan_layers=scan)
    mine = packer(config=config)
    made = compress(SOUP, mine, segments=16)
    assert made.tokens > 2 * 16 * config.context_length
    assert decompress(made.data, mine, "x") == SOUP


def test_the_size_is_the_cross_entropy_of_the_model(mine, packed):
    """Compared with forward passes over whole contexts."""
    tokens, layout = cut_pieces(SOUP, tokenizer()).tokens, Layout(packed.tokens, 4, CONFIG.context_length)
    usable = usable_symbols(tokenizer())
    forward = jax.jit(lambda model, row: model.logits(model.read(row, row * 0 + 1)))
    nats = 0.0
    for row, row_tokens in enumerate(layout.rows(tokens)):
        length = packed.tokens // 4 + (row < packed.tokens % 4)
        stream = np.array([tokenizer().bos_id, *row_tokens[:length]], np.int32)
        start = first = 0
        while first < length:  # windows whose first half was already scored
            window = stream[start : start + CONFIG.context_length]
            padded = np.zeros((1, CONFIG.context_length), np.int32)
            padded[0, : len(window)] = window
            scores = np.asarray(forward(mine.model, padded), np.float64)[0, :, : len(usable)]
            scores = np.where(usable, scores, -np.inf)
            logsum = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
            last = min(start + CONFIG.context_length, length)
            for place in range(first, last):
                nats += logsum[place - start] - scores[place - start, stream[place + 1]]
            first, start = last, last + 1 - layout.kept
    assert packed.cross_entropy_bits == pytest.approx(nats / math.log(2), rel=1e-5)
    assert packed.coded_bytes * 8 == pytest.approx(packed.cross_entropy_bits, rel=0.01)
    assert len(packed.data) == packed.header_bytes + packed.raw_bytes + packed.coded_bytes


def test_the_same_file_gives_the_same_bytes_and_progress_is_reported(packed):
    progress = []
    assert compress(SOUP, packer(), lambda *one: progress.append(one), segments=4).data == packed.data
    assert progress[-1] == (packed.tokens, packed.tokens) and len(progress) > 10
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)


def test_segments_are_a_power_of_two_and_not_too_short():
    assert [segments_for(n, 256) for n in (1, 1023, 1024, 2047, 2048, 10**9)] == [1, 1, 2, 2, 4, MOST_SEGMENTS]
    assert segments_for(8191, 4096) == 1
    for tokens, segments in ((1, 1), (7, 4), (2, 4), (64, 4)):
        layout = Layout(tokens, segments, 16)
        rows_BS = layout.rows(list(range(tokens)))
        for cut in (1, 3, max(1, layout.steps)):
            blocks = [rows_BS[:, start : start + cut] for start in range(0, layout.steps, cut)]
            assert [*chain.from_iterable(layout.flat(blocks))] == list(range(tokens))
        assert sum(layout.active(step) for step in range(layout.steps)) == tokens


def test_another_model_or_tokenizer_is_rejected_with_both_values(packed):
    other = packer(seed=1)
    here = compress(SOUP, other, segments=4).header.parameters.hex()
    there = packed.header.parameters.hex()
    with pytest.raises(InputError, match=f"x was compressed with the model {there}; this model is {here}"):
        decompress(packed.data, other, "x")
    by = train_bpe(texts(20, seed=8), EXPERIMENT.tokenizer)
    expected = f"tokenizer {tokenizer().fingerprint[:32]}; this tokenizer is {by.fingerprint[:32]}"
    with pytest.raises(InputError, match=expected):
        decompress(packed.data, packer(by=by), "x")


def resealed(data: bytes, **changes: object) -> bytes:
    """The file with other fields in its header, and a valid checksum."""
    file = io.BytesIO(data)
    return dataclasses.replace(Header.read(file, "x"), **changes).pack() + file.read()


def test_another_version_or_machine_is_rejected_unless_try_anyway(mine, packed):
    machine = packed.header.machine
    other = resealed(packed.data, machine=machine | {"jax": "0.1", "threads": "77"})
    with pytest.raises(InputError, match=rf"jax: 0\.1 there, {machine['jax']} here; threads: 77 there"):
        decompress(other, mine, "x")
    with pytest.raises(InputError, match=f"program: {'00' * 16} there, {packed.header.program.hex()} here"):
        decompress(resealed(packed.data, program=bytes(16)), mine, "x")
    assert decompress(other, mine, "x", try_anyway=True) == SOUP


def test_a_model_with_different_bits_never_returns_another_text(packed):
    """As on a processor with another order of summation: the last bit of one weight differs."""
    other = packer()
    table = other.model.embedding
    table.set_value(table[...].at[3, 3].set(np.nextafter(np.asarray(table[3, 3]), np.float32(9))))
    same_name = resealed(packed.data, parameters=compress(SOUP, other, segments=4).header.parameters)
    assert same_name != packed.data
    try:
        assert decompress(same_name, other, "x") == SOUP  # if the bit makes no difference
    except InputError as error:
        assert "x" in str(error)
    changed = resealed(packed.data, parameters=compress(SOUP, packer(seed=1), segments=4).header.parameters)
    with pytest.raises(InputError, match=r"was decompressed wrongly|damaged"):
        decompress(changed, packer(seed=1), "x")


@pytest.mark.parametrize("end", [0, 3, 6, 8, 9, 50, 180, -4, -1])
def test_a_truncated_file_is_rejected(end, mine, packed):
    with pytest.raises(InputError, match=r"x is (damaged|not a file of launch.compress)"):
        decompress(packed.data[:end], mine, "x")


def test_every_flipped_bit_is_found(mine, packed):
    generator = np.random.default_rng(0)
    places = [*range(packed.header_bytes + 40), *generator.integers(0, len(packed.data), 300).tolist()]
    for place in places:
        data = bytearray(packed.data)
        data[place] ^= 1 << int(generator.integers(8))
        with pytest.raises(InputError):
            decompress(bytes(data), mine, "x")


def test_other_formats_are_rejected(mine):
    with pytest.raises(InputError, match=r"begins with b'PK"):
        decompress(b"PK\x03\x04" * 20, mine, "x")
    with pytest.raises(InputError, match="has format version 9, and this program reads version 1"):
        decompress(MAGIC + b"\x09" + bytes(80), mine, "x")


@pytest.mark.parametrize(
    "claim", [{"tokens": 2**62, "size": 2**62}, {"tokens": 10**9}, {"segments": 3}, {"segments": 2**40}, {"size": 5}],
    ids=str,
)  # fmt: skip
def test_a_header_that_claims_too_much_is_rejected_immediately(claim, mine, packed):
    data, began = resealed(packed.data, **claim), time.process_time()
    tracemalloc.start()
    with pytest.raises(DamagedFileError):
        decompress(data, mine, "x")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert time.process_time() - began < 5
    assert most_tokens(packed.data, 450) > packed.tokens


def packed_zeros(size: int, /, **changes: Any) -> bytes:
    """A file of zeros, which xz compresses about 7,000 times, with another header."""
    lengths: Any = changes.pop("lengths", [0, size])
    body = Body(lengths, *packed_raw(bytes(size)), b"").pack()
    blank = bytes(DIGEST)
    header = Header(
        size=size, sha256=hashlib.sha256(bytes(size)).digest(), step=0, tokens=0, segments=0, parameters=blank,
        tokenizer=blank, program=blank, machine={}, body=len(body), body_crc=zlib.crc32(body),
    )  # fmt: skip
    return dataclasses.replace(header, **changes).pack() + body


def test_memory_does_not_grow_with_the_decompressed_size():
    size = 100_000_000
    data = packed_zeros(size)
    tracemalloc.start()
    assert sum(map(len, decompress_parts(data, None, "x"))) == size
    assert tracemalloc.get_traced_memory()[1] < DICTIONARY + 8 * CHUNK
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": 2**40, "lengths": [0, 2**40]}, "bytes, too few for the 1,099,511,627,776 bytes outside the text"),
        ({"size": 4_100_000, "lengths": [0, 4_100_000]}, "at least 4,000,000 bytes outside the text instead of 4,100,"),
        ({"size": 3_999_999, "lengths": [0, 3_999_999]}, "at least 4,000,000 bytes outside the text instead of 3,999,"),
        ({"size": 2**62}, "pieces of 4,000,000 bytes in total for a file of 4,611,686,018,427,387,904"),
    ],
    ids=["beyond xz", "too many", "too few", "size"],
)
def test_sizes_that_the_file_cannot_hold_are_rejected(changes, said):
    with pytest.raises(DamagedFileError, match=said):
        decompress(packed_zeros(4_000_000, **changes), None, "x")


def test_decoding_stops_when_the_bits_are_used_up(mine):
    tokens = cut_pieces(SOUP, tokenizer()).tokens
    data = encode(tokens, token_model(mine, len(tokens)), tokenizer(), lambda done: None).data
    done: list[int] = []
    with pytest.raises(ValueError, match=r"bytes of the coder, which end after [0-9,]+ tokens"):
        decode(data, token_model(mine, most_tokens(data, 450)), tokenizer(), done.append)
    assert done[-1] < 2 * len(tokens)


def test_repetitive_files_are_stored_by_xz_and_need_no_model(mine):
    data = b"a" * 1_000_000
    made = compress(data, mine)
    assert made.tokens == 0 and len(made.data) < 400
    assert decompress(made.data, None, "x") == data


def test_a_model_with_nan_is_rejected(mine):
    broken = packer()
    broken.model.embedding.set_value(broken.model.embedding[...] * np.float32(np.nan))
    with pytest.raises(InputError, match="cannot compress: the model's logits are not finite"):
        compress(SOUP, broken, segments=4)


def test_without_its_library_compression_names_the_platform_and_the_remedy():
    """constriction has no wheel for Linux on ARM."""
    code = "import sys; sys.modules['constriction'] = None; from lm.compression import coder"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.search(r"UsageError: Compression needs .* make add PACKAGE=constriction\.$", done.stderr.strip())

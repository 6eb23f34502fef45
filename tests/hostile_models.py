"""Hostile model files, deterministic, and a process that measures how a command handles each.

`make_base` writes good files; every case changes one of them in its own folder and names the command that reads it.
"""

import dataclasses
import json
import math
import os
import random
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.commands import Ended, run_command
from tests.run_files import QUICK, REPOSITORY

type Command = tuple[str, ...]
type Make = Callable[[Path, Path], Command]
"""Function of (the base, an empty folder) that writes files and returns the command that reads them."""
type Change = Callable[[bytes], bytes]
VOCABULARY, ROWS = 300, 420
"""Symbols of the tokenizer, and rows of the model."""
MOST_BYTES = 16 * 2**30
GGUF = "gguf/model.gguf"


class Case(NamedTuple):
    name: str
    make: Make


def make_base(base: Path) -> None:
    """Write a run folder of a Llama with 2 layers, the same as a GGUF file, as a Hugging Face folder, and as another
    whose tokenizer needs Hugging Face's library."""
    import numpy as np

    from configs.experiment.run_folder import RunFolder
    from launch.export import export
    from launch.release.imported import write_run
    from lm.config import TokenizerConfig
    from lm.formats.source import SourceModel
    from lm.formats.tensors import parameter_shapes
    from lm.tokenizer import train_bpe
    from tests.lm.model_configs import LLAMA
    from tests.lm.tokenizer.test_hugging_face_library import smollm2_like

    text = (REPOSITORY / "LICENSE").read_text()
    tokenizer = train_bpe([text], TokenizerConfig(VOCABULARY, "cl100k", 100_000))
    config = dataclasses.replace(LLAMA, vocab_size=ROWS)
    drawn = np.random.default_rng(0)
    shapes = parameter_shapes(config)
    parameters = {name: drawn.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    write_run(SourceModel(config, tokenizer, parameters), base / "run", "numbers")
    for kind, out in (("hugging_face", base / "hugging_face"), ("gguf", base / GGUF)):
        export(RunFolder(base / "run").open_to_publish(), out, kind)
    others = shutil.ignore_patterns("tokenizer_config.json", "special_tokens_map.json")
    shutil.copytree(base / "hugging_face", base / "library", ignore=others)
    (base / "library/tokenizer.json").write_text(smollm2_like().to_str())


def good_commands(base: Path, out: Path) -> dict[str, Command]:
    """{kind: the command on good files}."""
    return {kind: command_of(kind, base, out / kind) for kind in ("gguf", "hugging_face", "run")}


def command_of(kind: str, folder: Path, out: Path) -> Command:
    """The command that reads the files of this kind in the folder."""
    if kind == "run":
        return ("launch.sample", str(folder / "run"), "--prompt", "The miller", "--max-tokens", "2")
    return ("launch.import_model", str(folder / (GGUF if kind == "gguf" else kind)), str(out))


def changed(kind: str, change: Callable[[Path], object]) -> Make:
    """Change a copy of the good files of this kind."""

    def make(base: Path, folder: Path) -> Command:
        shutil.copytree(base / kind, folder / kind)
        change(folder / kind)
        return command_of(kind, folder, folder / "out")

    return make


def in_file(file: str, change: Change) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


def as_json(change: Callable[[Any], Any]) -> Change:
    """Change a JSON value; `change` may return another one."""

    def changed(data: bytes) -> bytes:
        value = json.loads(data)
        found = change(value)
        return json.dumps(value if found is None else found).encode()

    return changed


def fields(**values: object) -> Change:
    return as_json(lambda found: found | values)


# --- GGUF -----------------------------------------------------------------------------------------------------------


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def kv(name: str, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def bare_gguf(*fields: bytes, tensors: int = 0, count: int | None = None, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, len(fields) if count is None else count) + b"".join(fields)


def place_of_value(data: bytes, name: str) -> int:
    """Offset of the type of a field, before its value."""
    return data.index(string(name)) + 8 + len(name)


def with_number(name: str, letter: str, value: float, kind: int | None = None) -> Change:
    def change(data: bytes) -> bytes:
        at = place_of_value(data, name)
        packed = struct.pack(f"<{letter}", value)
        head = data[at : at + 4] if kind is None else struct.pack("<I", kind)
        return data[:at] + head + packed + data[at + 4 + len(packed) :]

    return change


def with_field(*fields: bytes) -> Change:
    """Insert a field at the front; the tensors' data stays aligned."""

    def change(data: bytes) -> bytes:
        added = b"".join(fields)
        pad = -(len(added) + 8 + 1 + 4 + 1) % 32
        added += kv("p" + "p" * pad, 0, b"\x00")
        version, tensors, count = struct.unpack_from("<IQQ", data, 4)
        return b"GGUF" + struct.pack("<IQQ", version, tensors, count + len(fields) + 1) + added + data[24:]

    return change


def replaced(old: bytes, new: bytes) -> Change:
    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return change


def tensor_entry(name: str, offset: int, letter: str, value: int) -> Change:
    """Change a number in the description of a tensor with two axes, at an offset after its name."""

    def change(data: bytes) -> bytes:
        at = data.index(string(name)) + 8 + len(name) + offset
        packed = struct.pack(f"<{letter}", value)
        return data[:at] + packed + data[at + len(packed) :]

    return change


def in_weights(word: bytes) -> Change:
    """Change a number in the last tensor's data."""
    return lambda data: data[: -64 - len(word)] + word + data[-64:]


def many_tensors(count: int) -> bytes:
    one = lambda n: string(f"t{n}") + struct.pack("<IQIQ", 1, 1, 0, 0)
    return bare_gguf(kv("general.architecture", 8, string("llama")), tensors=count) + b"".join(map(one, range(count)))


def million_tokens(data: bytes) -> bytes:
    """Add a million tokens to the vocabulary; the old one is kept under another name."""
    name = "tokenizer.ggml.tokens"
    other = replaced(string(name), string(name.upper()))(data)
    return with_field(kv(name, 9, struct.pack("<IQ", 8, 1_000_000) + string("1234567") * 1_000_000))(other)


LONGEST = 2**63 - 1
LLAMA_NUMBERS = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count", "context_length")


def gguf_changes() -> dict[str, Change]:
    array = lambda inner, length, rest=b"": struct.pack("<IQ", inner, length) + rest
    bare = {
        "array of 2^40 strings": bare_gguf(kv("a", 9, array(8, 2**40))),
        "array of 2^60 bytes": bare_gguf(kv("a", 9, array(0, 2**60))),
        "array of 2^63 doubles": bare_gguf(kv("a", 9, array(12, 2**63))),
        "arrays in arrays": bare_gguf(kv("a", 9, array(9, 2, array(9, 2, array(9, 2**40))))),
        "array of no type": bare_gguf(kv("a", 9, array(99, 5, bytes(40)))),
        "field of no type": bare_gguf(kv("a", 77, bytes(8))),
        "string of 2^63 bytes": bare_gguf(kv("a", 8, struct.pack("<Q", LONGEST))),
        "name of 2^63 bytes": bare_gguf(struct.pack("<Q", LONGEST) + b"aa"),
        "2^62 fields": bare_gguf(kv("a", 0, b"\x01"), count=2**62),
        "2^62 tensors": bare_gguf(kv("a", 0, b"\x01"), tensors=2**62),
        "tensor of 2^31 axes": bare_gguf(tensors=1) + string("t") + struct.pack("<I", 2**31) + bytes(40),
        "tensor of 2^96 values": bare_gguf(tensors=1) + string("t") + struct.pack("<IQQQIQ", 3, *[2**32] * 3, 0, 0),
        "tensor of an unknown type": bare_gguf(tensors=1) + string("t") + struct.pack("<IQIQ", 1, 1, 200, 0)
        + bytes(64),
        "40,000 tensors": many_tensors(40_000),
        "200,000 tensors": many_tensors(200_000),
        "3 million empty strings": bare_gguf(kv("a", 9, array(8, 3_000_000, bytes(24_000_000)))),
        "two million fields": bare_gguf(*(kv(f"{n:07}", 0, b"\x01") for n in range(2_100_000))),
        "33 MB string": bare_gguf(kv("a", 8, string(bytes(33_000_000)))),
        "no fields": bare_gguf() + bytes(64),
        "empty": b"", "magic alone": b"GGUF", "version 1": bare_gguf(version=1), "version 0": bare_gguf(version=0),
        "version 99": bare_gguf(version=99), "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "noise": b"GGUF" + random.Random(1).randbytes(5000),
        "noise behind a version": b"GGUF" + struct.pack("<I", 3) + random.Random(2).randbytes(5000),
    }  # fmt: skip
    changes: dict[str, Change] = {name: lambda _, data=data: data for name, data in bare.items()}
    for field in LLAMA_NUMBERS:
        for value in (0, 2**32 - 1, 4_000_000_000, 2_000_000_000):
            changes[f"{field} = {value}"] = with_number(f"llama.{field}", "I", value)
    changes |= {f"cut to {n} tenths": lambda data, n=n: data[: len(data) * n // 10] for n in range(1, 10)}
    return changes | {
        "block_count = 100000": with_number("llama.block_count", "I", 100_000),
        "block_count = -1": with_number("llama.block_count", "i", -1, 5),
        "block_count a float": with_number("llama.block_count", "f", 2.0, 6),
        "key_length = 2^31 - 2": with_number("llama.attention.key_length", "I", 2**31 - 2),
        "head_count_kv = 0": with_number("llama.attention.head_count_kv", "I", 0),
        "epsilon NaN": with_number("llama.attention.layer_norm_rms_epsilon", "f", math.nan),
        "epsilon -1": with_number("llama.attention.layer_norm_rms_epsilon", "f", -1.0),
        "rope base 0": with_number("llama.rope.freq_base", "f", 0.0),
        "rope base infinite": with_number("llama.rope.freq_base", "f", math.inf),
        "eos 2^31": with_number("tokenizer.ggml.eos_token_id", "I", 2**31),
        "bos 4e9": with_number("tokenizer.ggml.bos_token_id", "I", 4_000_000_000),
        "2 million strings": with_field(
            kv("a", 9, struct.pack("<IQ", 8, 2_000_000) + string("1234567") * 2_000_000), kv("a", 0, b"\x01")
        ),
        "2 million doubles": with_field(
            kv("a", 9, struct.pack("<IQ", 12, 2_000_000) + bytes(16_000_000)), kv("a", 0, b"\x01")
        ),
        "a million tokens": million_tokens,
        "30,000 tensors more": lambda data: (
            data[:8] + struct.pack("<Q", 30_000 + struct.unpack_from("<Q", data, 8)[0]) + data[16:]
        ),
        "alignment 0": with_field(kv("general.alignment", 4, struct.pack("<I", 0))),
        "alignment 3": with_field(kv("general.alignment", 4, struct.pack("<I", 3))),
        "alignment 2^31": with_field(kv("general.alignment", 4, struct.pack("<I", 2**31))),
        "alignment a string": with_field(kv("general.alignment", 8, string("x"))),
        "a field twice": with_field(kv("a", 0, b"\x01"), kv("a", 0, b"\x01")),
        "a tensor twice": replaced(string("blk.1.attn_q.weight"), string("blk.0.attn_q.weight")),
        "a tensor of another name": replaced(string("blk.1.attn_q.weight"), string("blk.9.attn_q.weight")),
        "another architecture": replaced(string("llama"), string("llam\xff".encode("latin-1"))),
        "another tokenizer": replaced(string("gpt2"), string("gpt9")),
        "other merges": replaced(string("\u0120 t"), string("\u0120 \u0120")),
        "a token that is no UTF-8": replaced(string("\u0120t"), string(b"\xff\xfe\xfd")),
        "axes swapped to 2^60": tensor_entry("token_embd.weight", 4, "Q", 2**60),
        "offset 2^63": tensor_entry("token_embd.weight", 24, "Q", 2**63),
        "offset beyond": tensor_entry("token_embd.weight", 24, "Q", 10**6),
        "type I8": tensor_entry("token_embd.weight", 20, "I", 24),
        "type F64": tensor_entry("token_embd.weight", 20, "I", 28),
        "weights NaN": in_weights(struct.pack("<f", math.nan)),
        "weights infinite": in_weights(struct.pack("<f", -math.inf)),
    }


# --- Hugging Face folders -------------------------------------------------------------------------------------------


DAMAGE: dict[str, Change] = {
    "empty": lambda data: b"", "cut": lambda data: data[: len(data) // 2], "a list": lambda data: b"[1, 2]",
    "deep": lambda data: b"[" * 200_000 + b"]" * 200_000, "no UTF-8": lambda data: b"{\"a\": \"\xff\xfe\"}",
    "a long number": lambda data: b"{\"a\": " + b"1" * 50_000 + b"}",
    "noise": lambda data: random.Random(3).randbytes(len(data)),
}  # fmt: skip


def config_changes() -> dict[str, Change]:
    numbers = {
        "num_hidden_layers": (100_000, 10**9, 10**30, 0, -1, 1.5, "2", [], {}, True),
        "hidden_size": (2**31, 10**30, 0, "16", [16]), "num_attention_heads": (10**9, 0, -4),
        "intermediate_size": (2**62, 0), "vocab_size": (2**31 - 1, 0, -5, None), "head_dim": (2**31, 7, 0),
        "max_position_embeddings": (10**12, 0), "num_key_value_heads": (0, 10**9, 3),
        "rms_norm_eps": (math.nan, math.inf, -1.0), "rope_parameters": ([], {"rope_type": "yarn"}),
        "architectures": ([["LlamaForCausalLM"]], [{}], [], None, 5, ["x" * 10**6], ["LlamaForCausalLM"] * 2),
        "tie_word_embeddings": ("yes",), "quantization_config": ({"bits": 4},), "hidden_act": ([["silu"]], "gelu"),
    }  # fmt: skip
    own = {"architectures": ["GristmillForCausalLM"]}
    model = {"ngram_longest": 10**9, "attention_windows": [[1]] * 1000, "layers": 10**9}
    return {
        **{f"{name} = {json.dumps(one)[:30]}": fields(**{name: one}) for name, many in numbers.items() for one in many},
        **{f"model.{name}": fields(**own, model=own_model() | {name: model[name]}) for name in model},
        "no model": fields(**own), **DAMAGE,
        "5 MB": lambda data: data + b" " * 5_000_000,
        "2 million lists": lambda data: b"[" + b"[]," * 1_300_000 + b"1]",
    }  # fmt: skip


def own_model() -> dict[str, Any]:
    from tests.lm.model_configs import LLAMA

    return dataclasses.asdict(dataclasses.replace(LLAMA, vocab_size=ROWS))


def header_change(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Change a value in the header of a safetensors file."""

    def changed(data: bytes) -> bytes:
        end = 8 + int.from_bytes(data[:8], "little")
        text = as_json(change)(data[8:end])
        return len(text).to_bytes(8, "little") + text + data[end:]

    return changed


def first_tensor(**values: Any) -> Change:
    def change(header: dict[str, Any]) -> None:
        header[next(name for name in header if name != "__metadata__")] |= values

    return header_change(change)


def million_tensors(count: int) -> bytes:
    header = ",".join(f'"t{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(count))
    text = f"{{{header}}}".encode()
    return len(text).to_bytes(8, "little") + text


def safetensors_changes() -> dict[str, Change]:
    length = lambda value: lambda data: value.to_bytes(8, "little") + data[8:]
    return {
        "header of 2^63 bytes": length(2**63), "header of 2^40 bytes": length(2**40), "header of 0 bytes": length(0),
        "header longer than the file": lambda data: length(len(data))(data),
        "header of 50 MB blanks": lambda data: (50_000_000).to_bytes(8, "little") + b" " * 50_000_000 + data,
        "70,000 tensors": lambda data: million_tensors(70_000),
        "100,000 tensors": lambda data: million_tensors(100_000),
        "a million tensors": lambda data: million_tensors(1_000_000),
        "header a list": lambda data: (2).to_bytes(8, "little") + b"[]" + data,
        "offsets beyond": first_tensor(data_offsets=[0, 10**9]), "offsets negative": first_tensor(data_offsets=[-4, 0]),
        "offsets 2^63": first_tensor(data_offsets=[2**63, 2**64]), "offsets swapped": first_tensor(data_offsets=[9, 1]),
        "shape 2^62": first_tensor(shape=[2**62, 4]), "shape another": first_tensor(shape=[1]),
        "shape of 10,000 axes": first_tensor(shape=[1] * 10_000), "dtype unknown": first_tensor(dtype="F7"),
        "dtype F64": first_tensor(dtype="F64"), "dtype I32": first_tensor(dtype="I32"),
        "weights NaN": in_weights(struct.pack("<f", math.nan)),
        "weights infinite": in_weights(struct.pack("<f", math.inf)),
        "empty": lambda data: b"", "7 bytes": lambda data: data[:7],
        "noise": lambda data: random.Random(4).randbytes(5000),
        **{f"cut to {n} tenths": lambda data, n=n: data[: len(data) * n // 10] for n in (1, 5, 9)},
    }  # fmt: skip


WEIGHTS = "model.safetensors"


def index_changes() -> dict[str, Callable[[Path], object]]:
    def index(weight_map: Callable[[list[str]], Any], size: int = 0) -> Callable[[Path], object]:
        def change(folder: Path) -> None:
            (folder / WEIGHTS).rename(folder / "a.safetensors")
            data = (folder / "a.safetensors").read_bytes()
            names = [*json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])]
            text = json.dumps({"weight_map": weight_map(names)})
            (folder / f"{WEIGHTS}.index.json").write_text(text + " " * size)

        return change

    home = lambda file: lambda names: dict.fromkeys(names, file)
    return {
        "path above": index(home("../a.safetensors")), "absolute path": index(home("/etc/passwd.safetensors")),
        "missing file": index(home("b.safetensors")), "a list": index(list),
        "5 MB": index(home("a.safetensors"), 5_000_000),
        "30,000 names": index(lambda names: {f"t{n}": "a.safetensors" for n in range(30_000)}),
        "file names of lists": index(lambda names: {one: ["a.safetensors"] for one in names}),
    }  # fmt: skip


PATTERNS = {
    "(a+)+$": r"(a+)+$", "(a|aa)+$": r"(a|aa)+$", "three stars": r"a*a*a*b|\s|\S", "reference": r"(\w+)\1|\s|\S",
    "recursion": r"(?<x>a\g<x>?b)|\s|\S", "unclosed": r"(a|\s", "repeats": r"(((a{99}){99}){99}){99}|\s|\S",
    "groups 1,000 deep": "(" * 1000 + ")" * 1000, "100 kB": "a" * 100_000, "optional": "a?" * 40 + "a" * 40 + r"|\s|\S",
}  # fmt: skip


def split_by(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, byte_level]}


def words_and_ids() -> dict[str, Change]:
    """Changes of a tokenizer with our own rules, and of one that Hugging Face's library encodes with."""

    def special_id(id: int) -> Change:
        def change(found: dict[str, Any]) -> None:
            name = found["added_tokens"][0]["content"]
            found["added_tokens"][0]["id"] = id
            found["model"]["vocab"][name] = id

        return as_json(change)

    words = lambda found: found["model"]["vocab"].update({f"q{n}": 300 + n for n in range(1_000_000)})
    return {
        **{f"split by {name}": fields(pre_tokenizer=split_by(pattern)) for name, pattern in PATTERNS.items()},
        **{f"special id {id}": special_id(id) for id in (5_000, 2**21, 2**32 - 1, 5 * 10**9, -1)},
        "a million words": as_json(words),
    }


def tokenizer_changes() -> dict[str, Change]:
    model = lambda **values: as_json(lambda found: found["model"].update(values))
    lists = lambda count: lambda data: b'{"model": [' + b"[]," * count + b"1]}"
    return {
        "vocab a list": model(vocab=[1, 2]), "merges unknown": model(merges=[["q1q", "q2q"]]),
        "dropout": model(dropout=0.5),
        "type": model(type="WordPiece"), "type a list": model(type=[]), "no vocab": model(vocab={}),
        "added_tokens": fields(added_tokens={"a": 1}), "no pre_tokenizer": fields(pre_tokenizer=None),
        "normalizer": fields(normalizer={"type": "Lowercase"}), "post_processor": fields(post_processor={"type": "X"}),
        **DAMAGE,
        **{f"{count:,} lists": lists(count) for count in (1_400_000, 4_000_000)},
        "a string of 60 MB": lambda data: b'{"model": "' + b"\xc4\x80" * 30_000_000 + b'"}',
        "70 MB": lambda data: data + b" " * 70_000_000,
    }  # fmt: skip


# --- Run folders and packed files -----------------------------------------------------------------------------------


def other_tokenizer(**settings: Any) -> Callable[[Path], object]:
    """meta.json with other settings and their tokenizer fingerprint, also in the checkpoint."""

    def change(run: Path) -> None:
        from lm.checkpoints.manifest import amend
        from lm.tokenizer import load

        tokenizer = load(run / "tokenizer")
        made = object.__new__(type(tokenizer))
        made.__dict__.update(vars(tokenizer) | settings)
        made.__dict__.pop("fingerprint", None)
        fingerprint = made.fingerprint
        in_file("tokenizer/meta.json", fields(**settings, fingerprint=fingerprint))(run)
        amend(run / "checkpoints/0", {"tokenizer": fingerprint})

    return change


def run_config_changes() -> dict[str, Change]:
    values = {
        "layers": (20_000, 10**9, 10**30, 3, 0), "width": (2**40,), "vocab_size": (2**40, 200),
        "ngram_longest": (10**9,),
        "ngram_rows": (2**40,), "attention_windows": ([[1]],), "scan_layers": ("x",), "head_dim": (2**31,),
    }  # fmt: skip
    model = lambda **values: as_json(lambda config: config["model"].update(values))
    found = {f"model.{name} = {str(one)[:12]}": model(**{name: one}) for name, many in values.items() for one in many}
    return found | {"a stack of 10^9 layers": model(layers=10**9, scan_layers=True)}


OTHER_META = (("kind", ["bpe"]), ("documents", "x"), ("special_tokens", [1]), ("pattern", 5))


def cases() -> list[Case]:
    """All cases, with distinct names."""
    large = {"5 MB": lambda data: data + b" " * 5_000_000}
    tokens = {f"special token id {id}": other_tokenizer(special_tokens={"<|endoftext|>": id})
              for id in (5_000, 2**21, 10**15)}  # fmt: skip
    tokens |= {f"split by {name}": other_tokenizer(pattern=PATTERNS[name]) for name in ("(a+)+$", "three stars",
                                                                                     "unclosed")}  # fmt: skip
    of_files: list[tuple[str, str, str, Mapping[str, Change]]] = [
        ("gguf: ", "gguf", "model.gguf", gguf_changes()),
        ("config: ", "hugging_face", "config.json", config_changes()),
        ("safetensors: ", "hugging_face", WEIGHTS, safetensors_changes()),
        ("tokenizer: ", "hugging_face", "tokenizer.json", words_and_ids() | tokenizer_changes()),
        ("tokenizer: library, ", "library", "tokenizer.json", words_and_ids()),
        ("tokenizer: bos ", "hugging_face", "tokenizer_config.json",
         {"a list": fields(bos_token=["a"]), "unknown": fields(bos_token="<q>")}),
        ("run: ", "run", "config.json", run_config_changes()),
        ("run: config.json: ", "run", "config.json", DAMAGE | large),
        ("run: tokenizer/meta.json: ", "run", "tokenizer/meta.json", DAMAGE | large),
        ("run: meta.json: ", "run", "tokenizer/meta.json", {one: fields(**{one: value}) for one, value in OTHER_META}),
    ]  # fmt: skip
    found = [
        Case(f"{start}{name}", changed(kind, in_file(file, change)))
        for start, kind, file, changes in of_files
        for name, change in changes.items()
    ]
    found += [Case(f"index: {name}", changed("hugging_face", change)) for name, change in index_changes().items()]
    found += [Case(f"run: {name}", changed("run", change)) for name, change in tokens.items()]
    assert len({case.name for case in found}) == len(found)
    return found


def measured(command: Command) -> Ended:
    """The result of the command, limited to MOST_BYTES of address space."""
    environment = os.environ | QUICK | {"RUST_BACKTRACE": "0"}
    return run_command(*command, environment=environment, most_bytes=MOST_BYTES)

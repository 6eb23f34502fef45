"""The 50 greedy tokens of our engine, transformers, llama.cpp and model.py of a standalone folder.

Part of tests.bench.interop. Each program reads an export of the same run, tokenizes the prompt itself, and decodes with
a cache.
"""

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.experiment.run_folder import RunFolder
from launch.export import export
from launch.import_model import open_source
from launch.release.imported import write_run
from lm.errors import UsageError
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.tokenizer.sentencepiece import BLANK, SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BPE, BYTE, CONTROL, NORMAL, UNKNOWN, Piece, SentencePieceModel, write_model
from tests.bench.runner import SHARED, ask_peer

STORIES = SHARED / "models/stories260K"
TRANSFORMERS = """
import json, sys, torch, transformers
folder, prompt, new = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=True).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, pad_token_id=0)
print(json.dumps([ids[0].tolist(), made[0, ids.shape[1]:].tolist(), "transformers " + transformers.__version__]))
"""
LLAMA = """
import json, sys, llama_cpp
file, prompt, new = sys.argv[1], sys.argv[2], int(sys.argv[3])
# By default keys and values are kept in float16: here, as ours, in float32 (0).
model = llama_cpp.Llama(file, n_ctx=0, type_k=0, type_v=0, n_threads=2, verbose=False, logits_all=True)
ids = model.tokenize(prompt.encode(), add_bos=True, special=False)
row = list(ids)
model.eval(row)
while len(row) < len(ids) + new:
    row.append(int(model.scores[len(row) - 1].argmax()))
    model.eval(row[-1:])
print(json.dumps([ids, row[len(ids):], "llama-cpp-python " + llama_cpp.__version__]))
"""
STANDALONE = """
import json, sys, numpy
sys.path.insert(0, sys.argv[1])
import model
tokenizer = model.Tokenizer(model.FOLDER / "tokenizer.json")
ids = [tokenizer.begin] + tokenizer.encode(sys.argv[2])
print(json.dumps([ids, list(model.generate(ids, int(sys.argv[3]), 0.0, 0)), "numpy " + numpy.__version__]))
"""


def stories_tokenizer() -> SentencePieceTokenizer:
    """The tokenizer of stories260K, in the file format of llama2.c: score, length and bytes of each piece
    (karpathy/llama2.c: tokenizer.py)."""
    data, at, pieces = (STORIES / "tok512.bin").read_bytes(), 4, []
    while at < len(data):
        score, length = struct.unpack_from("<fi", data, at)
        text, id = data[at + 8 : at + 8 + length].decode(), len(pieces)
        kind = UNKNOWN if id == 0 else CONTROL if id < 3 else BYTE if id < 259 else NORMAL
        pieces.append(Piece(text.strip() if id < 3 else text.replace(" ", BLANK), score, kind))
        at += 8 + length
    model = SentencePieceModel(
        tuple(pieces), BPE, dummy_prefix=True, shortens=False, charsmap=b"", unk_id=0, bos_id=1, eos_id=2
    )
    return SentencePieceTokenizer.from_model(write_model(model))


def ours(run: RunFolder, prompt: str, new: int) -> tuple[list[int], list[int]]:
    """Return (the prompt's tokens, the following greedy tokens)."""
    loaded = run.load()
    tokenizer, config = loaded.tokenizer, loaded.experiment.model
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    engine = Engine(loaded.model, config, tokenizer, slots=1, context=min(config.context_length, 256))
    (made,) = engine.complete([GenerationRequest(tuple(ids), SamplingParams(max_tokens=new, temperature=0.0))])
    return ids, list(made.tokens)


def agreement(run: RunFolder, scratch: Path, name: str, prompt: str, peer: str, llama: str, new: int) -> dict[str, Any]:
    """Count the tokens of each program that agree with ours before the first difference."""
    ids, made = ours(run, prompt, new)
    found: dict[str, Any] = {"case": f"greedy {name}", "prompt": prompt, "tokens": len(made)}
    programs = [
        ("transformers", peer, TRANSFORMERS, "hugging_face", ""),
        ("model.py", llama, STANDALONE, "standalone", ""),
    ]
    programs += [
        (f"llama.cpp {dtype}", llama, LLAMA, "gguf", dtype) for dtype in ("float32", "float16", "bfloat16", "q8_0")
    ]
    versions: set[str] = set()
    for program, python, code, form, dtype in programs:
        place = scratch / f"{form}{dtype}{'.gguf' if form == 'gguf' else ''}"
        try:
            export(run.open_to_publish(), place, form, dtype)
        except UsageError as error:
            found[program] = f"refused: {error}"
            continue
        prompt_ids, their_ids, version = ask_peer(python, code, place, prompt, new)
        pairs = zip(made, their_ids, strict=False)
        found[program] = next(
            (n for n, (one, other) in enumerate(pairs) if one != other), min(len(made), len(their_ids))
        )
        found[f"{program}, prompt"] = prompt_ids == ids
        versions.add(version)
    return found | {"versions": sorted(versions)}


def cases(scratch: Path, run: str, small: dict[str, Any]) -> Iterator[tuple[str, RunFolder, str]]:
    """Yield (name, run folder, prompt) of the given run, of stories260K, and of `small`: {name: SourceModel}."""
    if run:
        yield "run", RunFolder(Path(run)), "The history of"
    if STORIES.is_dir():
        write_run(open_source(STORIES / "hf", stories_tokenizer()), scratch / "stories", "stories260K")
        yield "stories260K", RunFolder(scratch / "stories"), "Once upon a time"
    for name, source in small.items():
        source = dataclasses.replace(source, config=dataclasses.replace(source.config, context_length=128))
        write_run(source, scratch / name, "random")
        yield name, RunFolder(scratch / name), "The quick brown fox"

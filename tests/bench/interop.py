"""Models exported to Hugging Face's transformers and imported back: both sides compute the same.

    python -m tests.bench.interop --peer PYTHON [--llama PYTHON] [--run RUN] [--only greedy]

PYTHON has torch and transformers 5. Small random models cover the features of a config, scanned and unrolled. Prints a
JSON line for each: largest difference of logits, whether greedy tokens agree (with a cache, without, and in a batch
with left padding), and the number of texts with different ids. With --llama, a Python that has llama-cpp-python, also
how many of our 50 greedy tokens transformers, llama.cpp and model.py produce before the first difference
(interop_greedy.py).
"""

import dataclasses
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.experiment.run_folder import RunFolder
from launch.export import export
from launch.import_model import open_source
from launch.release.imported import write_run
from lm.config import ModelConfig, RopeScalingConfig, TokenizerConfig
from lm.formats.hugging_face.tokenizer_files import write_tokenizer
from lm.formats.safetensors import read_folder
from lm.formats.source import SourceModel
from lm.model.param_names import named_leaves
from lm.model.transformer import Transformer
from lm.tokenizer import Tokenizer, train_tokenizer
from tests.adversarial import GENERATORS
from tests.bench.interop_greedy import agreement, cases
from tests.bench.runner import SkippedError, ask_peer, run_benchmark
from tests.lm.model_configs import GPT2, LLAMA, MODERN
from tests.run_files import LICENSE

THERE = """
import json, sys, numpy, torch, transformers
folder, asked, file = sys.argv[1:]
asked = json.load(open(asked))
model, report = transformers.AutoModelForCausalLM.from_pretrained(
    folder, output_loading_info=True, dtype=torch.float32, trust_remote_code=True)
assert not any(report.values()), report
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
tokens = torch.tensor(asked["tokens"])
with torch.inference_mode():
    model.eval()
    logits = model(tokens).logits.numpy()
    make = lambda ids, mask=None, cache=True, **more: model.generate(
        ids, attention_mask=mask if mask is not None else torch.ones_like(ids), max_new_tokens=asked["new"],
        do_sample=False, use_cache=cache, eos_token_id=None, pad_token_id=0, **more).tolist()
    prompt = tokens[:1, :asked["prompt"]]
    short = prompt[:, 2:]
    padded = torch.cat([prompt, torch.nn.functional.pad(short, (2, 0))])
    mask = torch.ones_like(padded)
    mask[1, :2] = 0
    found = {"cached": make(prompt)[0], "uncached": make(prompt, cache=False)[0], "short": make(short)[0],
             "padded": make(padded, mask), "beams": make(prompt, num_beams=3)[0],
             "beams_uncached": make(prompt, num_beams=3, cache=False)[0]}
found["ids"] = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in asked["texts"]]
found["headed"] = tokenizer("a")["input_ids"]
found["versions"] = [torch.__version__, transformers.__version__]
numpy.save(file, logits)
print(json.dumps(found))
"""
LLAMA31 = RopeScalingConfig(factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context_length=32)
FORWARD = jax.jit(lambda model, tokens: model.logits(model.read(tokens, jnp.ones_like(tokens))))
NEW, PROMPT = 50, 12
SAMPLE = [
    "The quick brown fox jumps over the lazy dog. It's 12,345 o'clock, isn't it?\n\n  Naïve café — 東京 🙂\t",
    "def f(x):\n    return x ** 2  # squares\n" * 3, "ÄÖÜ ß ﬁ ½ ² ٣ ｆｕｌｌ", "a" * 50 + " " * 30 + "\r\n\r\n",
    "\u200b\ufeff\u0301e\u0301", "\U0001f469\u200d\U0001f4bb \U000e0041", "",
]  # fmt: skip


def texts() -> list[str]:
    return SAMPLE + [make(200) for make in GENERATORS.values()]


def models() -> dict[str, ModelConfig]:
    long = {"context_length": 128, "vocab_size": 320}
    llama, gpt2, modern = (dataclasses.replace(one, **long) for one in (LLAMA, GPT2, MODERN))
    return {
        "gpt2": gpt2, "gpt2 tied": dataclasses.replace(gpt2, tie_embeddings=True), "llama": llama,
        "llama 3.1": dataclasses.replace(llama, rope_scaling=LLAMA31, tie_embeddings=False),
        "llama head_dim": dataclasses.replace(llama, head_dim=16),
        "modern": modern,
        "demo's": dataclasses.replace(modern, tie_embeddings=True, logit_softcap=None, ngram_longest=2),
        "windows": dataclasses.replace(modern, attention_windows=(8, 0), token_shift=False, ngram_rows=0),
        "llama with a token shift": dataclasses.replace(llama, token_shift=True),
        "gpt2 with n-grams": dataclasses.replace(gpt2, ngram_rows=64, ngram_longest=4),
        "layernorm without biases": dataclasses.replace(modern, norm="layernorm", position="learned", kv_heads=1),
    }  # fmt: skip


def tokenizers() -> dict[str, Tokenizer]:
    base = TokenizerConfig(vocab_size=320, split_pattern="gpt2", train_characters=1_000_000)
    words = [LICENSE, *filter(None, texts())] + ["".join(map(chr, range(32, 127)))] * 3
    return {
        name: train_tokenizer(words, dataclasses.replace(base, **more))
        for name, more in {
            "bpe": {}, "bpe cl100k": {"split_pattern": "cl100k"}, "bpe o200k": {"split_pattern": "o200k"},
            "sentencepiece bpe": {"algorithm": "sentencepiece_bpe", "vocab_size": 400},
            "sentencepiece unigram": {"algorithm": "sentencepiece_unigram", "vocab_size": 400},
        }.items()
    }  # fmt: skip


def parameters_of(config: ModelConfig) -> dict[str, np.ndarray]:
    """Random parameters, including those initialized with a constant."""
    leaves = named_leaves(jax.eval_shape(lambda: Transformer(config, jax.random.key(0))))
    source = np.random.default_rng(0)
    scale = lambda name: 1.0 if name.endswith("scale") else 0.5 if name.endswith("share") else 0.0
    return {
        name: (scale(name) + source.normal(0, 0.15, leaf.shape)).astype(np.float32) for name, leaf in leaves.items()
    }


def greedy(model: Transformer, config: ModelConfig, prompt: list[int]) -> list[int]:
    """Decode greedily by repeated full forward passes."""
    row = [*prompt]
    for _ in range(NEW):
        padded = jnp.asarray([row + [0] * (config.context_length - len(row))], jnp.int32)
        row.append(int(jnp.argmax(FORWARD(model, padded)[0, len(row) - 1])))
    return row


def ask(peer: str, folder: Path, tokens: np.ndarray, asked: list[str]) -> tuple[dict, np.ndarray]:
    question, logits = folder.with_suffix(".asked"), folder.with_suffix(".npy")
    question.write_text(json.dumps({"tokens": tokens.tolist(), "texts": asked, "new": NEW, "prompt": PROMPT}))
    return ask_peer(peer, THERE, folder, question, logits), np.load(logits)


def compare(peer: str, folder: Path, run: RunFolder, name: str) -> dict:
    """Compare transformers on the export of a run with our engine on the run."""
    export(run.open_to_publish(), folder, "hugging_face")
    experiment = run.experiment()
    model = dataclasses.replace(experiment.model, compute_dtype="float32")  # as computed by transformers
    loaded = run.load(experiment=dataclasses.replace(experiment, model=model))
    config, tokenizer = loaded.experiment.model, loaded.tokenizer
    tokens = np.random.default_rng(1).integers(0, min(tokenizer.vocab_size, config.vocab_size), (2, 100))
    found, logits = ask(peer, folder, tokens, texts())
    ours = FORWARD(loaded.model, jnp.asarray(tokens, jnp.int32))
    prompt = tokens[0, :PROMPT].tolist()
    expected, short = greedy(loaded.model, config, prompt), greedy(loaded.model, config, prompt[2:])
    differing = [text for text, ids in zip(texts(), found["ids"], strict=True) if ids != tokenizer.encode(text)]
    return {
        "case": name, "logits": float(np.max(np.abs(np.asarray(ours) - logits))),
        "largest": float(np.max(np.abs(ours))),
        "cached": found["cached"] == expected, "uncached": found["uncached"] == expected,
        "padded": found["padded"] == [expected, [0, 0, *short]], "beams": found["beams"] == found["beams_uncached"],
        "texts": len(found["ids"]), "differing": len(differing), "first": differing[0][:60] if differing else "",
        "headed": found["headed"][0] == tokenizer.bos_id, "versions": found["versions"],
    }  # fmt: skip


MAKE = """
import sys, torch, transformers
folder = sys.argv[1]
llama = dict(vocab_size=320, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             intermediate_size=48, max_position_embeddings=128, initializer_range=0.2)
scaled = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
cases = {
    "gpt2": (transformers.GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=128,
                                     initializer_range=0.2), torch.float32, "5GB"),
    "gpt2 float16": (transformers.GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=128,
                                             initializer_range=0.2), torch.float16, "5GB"),
    "llama bfloat16 in shards": (transformers.LlamaConfig(**llama), torch.bfloat16, "20KB"),
    "llama tied, scaled": (transformers.LlamaConfig(**llama, tie_word_embeddings=True, rope_parameters=scaled),
                           torch.float32, "5GB"),
}
for name, (config, dtype, shard) in cases.items():
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(
        f"{folder}/{name}", max_shard_size=shard)
"""


def tensors_in(folder: Path) -> dict[str, tuple[str, bytes]]:
    return {name: (one.dtype, one.read().tobytes()) for name, one in read_folder(folder).items()}


def imports(peer: str, scratch: Path, tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """Compare logits of models created by transformers with our import, and tensors after a round trip."""
    subprocess.run([peer, "-c", MAKE, scratch], check=True, capture_output=True)
    for folder in sorted(path for path in scratch.iterdir() if path.is_dir()):
        write_tokenizer(folder, tokenizer, 128)
        before = tensors_in(folder)
        for scanned in (False, True):
            run = RunFolder(scratch / f"{folder.name} run {scanned}")
            write_run(open_source(folder, None), run.root, folder.name, scanned)
            found = compare(peer, scratch / f"{folder.name} out {scanned}", run, f"import {folder.name}, {scanned}")
            after = tensors_in(scratch / f"{folder.name} out {scanned}")
            found["same_tensors"] = all(before[name] == after[name] for name in after) and before.keys() >= after.keys()
            yield found


def main(peer: str = "", llama: str = "", run: str = "", only: str = "") -> Iterator[dict[str, Any]]:
    """Args:
    peer: A Python with torch and transformers 5.
    llama: A Python with llama-cpp-python.
    run: A trained run, for --llama.
    only: Run cases with this in their name.
    """
    if not peer:
        raise SkippedError("give --peer, a Python that has torch and transformers 5")
    made = tokenizers()
    numbers = [(f"{name}, {form}", config, made["bpe"], form == "scanned") for name, config in models().items()
             for form in ("unrolled", "scanned") if form == "unrolled" or config.layers_alike]  # fmt: skip
    numbers += [(f"tokenizer {name}", dataclasses.replace(models()["llama"], vocab_size=512), one, False)
              for name, one in made.items()]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for number, (name, config, tokenizer, scanned) in enumerate(numbers):
            if only not in name:
                continue
            place = scratch / str(number)
            source = SourceModel(config, tokenizer, parameters_of(config))
            write_run(source, place / "run", "random", scanned)
            yield compare(peer, place / "hf", RunFolder(place / "run"), name)
            again = open_source(place / "hf", None)
            write_run(again, place / "again", "hf", scanned)
            export(RunFolder(place / "again").open_to_publish(), place / "hf2", "hugging_face")
            for one in ("model.safetensors", "tokenizer.json"):
                assert (place / "hf" / one).read_bytes() == (place / "hf2" / one).read_bytes(), f"{name}: {one}"
        if only in "import":
            (scratch / "imports").mkdir()
            yield from imports(peer, scratch / "imports", made["bpe"])
        if llama:
            tokenizer_of = {"gpt2": "bpe", "gpt2 tied": "bpe cl100k", "llama": "bpe cl100k", "llama 3.1": "bpe"}
            small = {
                name: SourceModel(models()[name], made[tokenizer], parameters_of(models()[name]))
                for name, tokenizer in tokenizer_of.items()
            }
            for number, (name, found, prompt) in enumerate(cases(scratch, run, small)):
                place = scratch / f"greedy-{number}"
                place.mkdir()
                if only in f"greedy {name}":
                    yield agreement(found, place, name, prompt, peer, llama, NEW)


if __name__ == "__main__":
    run_benchmark(main)

"""Filter by a BERT with one regression output: FineWeb-Edu's educational score (Lozhkov et al. 2024, hub:
HuggingFaceFW/fineweb-edu-classifier).

Reads the published config.json, model.safetensors and tokenizer.json. The forward pass is BERT's (Devlin et al. 2019,
arXiv:1810.04805) in NumPy, one text at a time, in float32: onnxruntime and CTranslate2 need a model that was converted
with torch, which is not installed. It takes about one second of a core for BERT-base and 512 tokens, thousands of times
longer than the other filters, so put it last.

Axes: T tokens, D width, H heads, K width of a head, F width of the inner layer.
"""

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.config.filters import Filter, Rule, Signal
from data_prep.text.passage import Passage
from lm.errors import InputError, UsageError
from lm.fields import measured, within
from lm.storage import as_local_file, digest, file_inside, place_of
from lm.tokenizer.encoding import no_panic

FILES = ("config.json", "model.safetensors", "tokenizer.json")
KIND = "BertForSequenceClassification"
NORMALIZERS = ("BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents")
PRE_TOKENIZERS = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits")
"""Allowed steps of the tokenizer. Others can lengthen a text without limit ("Replace"), until memory is exhausted, or
backtrack endlessly ("Split")."""
MOST_TOKENIZER_BYTES = 1 << 26
DIGITS = 3
"""Decimals of a score: float32 sums differ between machines in the last bits."""


@dataclass(frozen=True)
class EmbeddingFilter(Filter):
    """Drop texts by the score of a BERT with one regression output (FineWeb-Edu, arXiv:2406.17557, section 4)."""

    min_score: float
    """Minimum score. FineWeb-Edu keeps scores that round to 3 or more, so its value is 2.5."""
    model: str = measured()
    """Path or URL of a folder with config.json, model.safetensors and tokenizer.json, as on the hub."""
    max_tokens: int = measured(default=512)
    """Number of tokens to which longer texts are truncated."""

    name = "embedding"
    title = "Score of the embedding"
    summary = "A linear head on a BERT's embedding scores each text, as FineWeb-Edu does (arXiv:2406.17557, section 4)."
    signals = (Signal("embedding_score", "Score", "The output of the head; FineWeb-Edu's is from 0 to 5.", 0.05),)
    rules = (Rule("embedding_low_score", "embedding_score", "below", "min_score"),)

    def check_values(self):
        if not math.isfinite(self.min_score):
            raise UsageError(f"{self.path()}.min_score is {self.min_score}; give a finite number.")
        within(self, self.path(), 3, 100_000, "max_tokens")
        if not self.model:
            raise UsageError(f"{self.path()}.model is empty: give the folder of a model, or remove the filter.")

    def external_inputs(self) -> dict[str, object]:
        return {str(path): digest(path)[1] for path in load_classifier(self).files}

    def measure(self, passage: Passage) -> list[float]:
        classifier = load_classifier(self)
        with no_panic(
            f"the tokenizer of documents.embedding.model cannot encode {passage.text[:60]!r}…; choose another model"
        ):
            ids = classifier.tokenizer.encode(passage.text).ids
        return [round(classifier.score(ids), DIGITS)]


@dataclass(frozen=True, eq=False)
class Classifier:
    """A BERT (BertForSequenceClassification in transformers) with one output, run in NumPy."""

    files: list[Path]
    tokenizer: Any
    config: dict
    tensors: dict[str, np.ndarray]
    """{name in transformers: float32 array}."""

    def score(self, ids: list[int]) -> float:
        """Return the model's output for a text with these token ids."""
        table = lambda name: self.tensors[f"bert.embeddings.{name}_embeddings.weight"]
        x_TD = table("word")[ids] + table("position")[: len(ids)] + table("token_type")[0]
        x_TD = self.norm("bert.embeddings", x_TD)
        for layer in range(self.config["num_hidden_layers"]):
            at = f"bert.encoder.layer.{layer}"
            x_TD = self.norm(f"{at}.attention.output", x_TD + self.attention(f"{at}.attention", x_TD))
            inner_TF = gelu(self.linear(f"{at}.intermediate.dense", x_TD))
            x_TD = self.norm(f"{at}.output", x_TD + self.linear(f"{at}.output.dense", inner_TF))
        pooled_D = np.tanh(self.linear("bert.pooler.dense", x_TD[0]))
        return float(self.linear("classifier", pooled_D)[0])

    def attention(self, at: str, x_TD: np.ndarray) -> np.ndarray:
        tokens, width = x_TD.shape
        heads = self.config["num_attention_heads"]
        q_HTK, k_HTK, v_HTK = (
            self.linear(f"{at}.self.{name}", x_TD).reshape(tokens, heads, -1).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        weights_HTT = q_HTK @ k_HTK.transpose(0, 2, 1) / np.float32(math.sqrt(width // heads))
        weights_HTT = np.exp(weights_HTT - weights_HTT.max(axis=-1, keepdims=True))
        weights_HTT /= weights_HTT.sum(axis=-1, keepdims=True)
        mixed_TD = (weights_HTT @ v_HTK).transpose(1, 0, 2).reshape(tokens, width)
        return self.linear(f"{at}.output.dense", mixed_TD)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def norm(self, at: str, x_TD: np.ndarray) -> np.ndarray:
        epsilon = np.float32(self.config.get("layer_norm_eps", 1e-12))
        centered_TD = x_TD - x_TD.mean(axis=-1, keepdims=True)
        scale = 1 / np.sqrt(np.square(centered_TD).mean(axis=-1, keepdims=True) + epsilon)
        return centered_TD * scale * self.tensors[f"{at}.LayerNorm.weight"] + self.tensors[f"{at}.LayerNorm.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    """Return the exact GELU (by the error function), as in BERT."""
    from scipy.special import erf

    return (x * 0.5 * (1 + erf(x / np.float32(math.sqrt(2))))).astype(np.float32)


@functools.lru_cache(maxsize=2)
def load_classifier(filter: EmbeddingFilter) -> Classifier:
    """Load filter.model, once per process. Raises InputError if it cannot be read or a file is a link out of its
    folder, UsageError if it is not a BertForSequenceClassification with GELU and one output."""
    from safetensors.numpy import load_file

    try:
        place = place_of(filter.model)
        files = [file_inside(place, name) if isinstance(place, Path) else as_local_file(place / name) for name in FILES]
        config = json.loads(files[0].read_text(encoding="utf-8"))
        kind = (config.get("architectures") or ["?"])[0]
        if kind != KIND or config.get("hidden_act", "gelu") != "gelu":
            raise UsageError(
                f"documents.embedding.model = {filter.model} is a {kind} with hidden_act {config.get('hidden_act')}, "
                f"but only {KIND} with gelu is read. Choose such a model."
            )
        tensors = {name: value.astype(np.float32) for name, value in load_file(files[1]).items()}
        found, width = tensors["classifier.weight"].shape, config["hidden_size"]
        if found != (1, width):
            raise UsageError(
                f"documents.embedding.model = {filter.model} has a classifier of shape {found}, but a score is one "
                f"output, (1, {width}). Choose a model with one output."
            )
        tokenizer = read_tokenizer(files[2], min(filter.max_tokens, config["max_position_embeddings"]))
        classifier = Classifier(files, tokenizer, config, tensors)
        classifier.score(tokenizer.encode("a").ids)  # fail before any work if a tensor is missing
    except InputError:
        raise
    except Exception as error:  # safetensors and tokenizers raise their own classes
        raise InputError(
            f"documents.embedding.model = {filter.model} cannot be read: {error!r}. Give a folder with "
            f"{', '.join(FILES)} of a BERT."
        ) from error
    return classifier


def read_tokenizer(path: Path, max_tokens: int) -> Any:
    """Load a tokenizer.json, set to truncate texts to `max_tokens`. Raises InputError if it is too large, or has a
    normalizer or pre-tokenizer that is not allowed."""
    from tokenizers import Tokenizer

    if (size := path.stat().st_size) > MOST_TOKENIZER_BYTES:
        raise InputError(
            f"{path} has {size:,} bytes; tokenizers of at most {MOST_TOKENIZER_BYTES:,} bytes are supported. Check "
            "that it is the model's tokenizer.json, or choose another model."
        )
    contents = json.loads(path.read_bytes())
    for name, known in (("normalizer", NORMALIZERS), ("pre_tokenizer", PRE_TOKENIZERS)):
        steps = [contents.get(name)]
        for step in steps:  # grows during the loop
            if step is not None and step["type"] == "Sequence":
                steps += step.get(f"{name}s") or step["pretokenizers"]
            elif step is not None and step["type"] not in known:
                raise InputError(
                    f"{path} has the {name} {step['type']!r}, but only {', '.join(known)} are supported. Choose "
                    "another model."
                )
    with no_panic(f"{path} is not a tokenizer that the tokenizers library can read; choose another model"):
        tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer

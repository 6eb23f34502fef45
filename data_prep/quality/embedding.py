"""Filter by a linear head on a text embedding: FineWeb-Edu's educational score (Lozhkov et al. 2024, hub:
HuggingFaceFW/fineweb-edu-classifier), a BERT with one regression output.

Reads the published config.json, model.safetensors and tokenizer.json. The forward pass is BERT's (Devlin et al. 2019,
arXiv:1810.04805), one text at a time, in float32 on the CPU. It takes about one second of a core for BERT-base and 512
tokens, thousands of times longer than the other filters, so put it last.

Axes: T tokens, D width, H heads, K width of a head, F width of the inner layer, C outputs.
"""

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data_prep.config.filters import Filter, Rule, Signal
from data_prep.text.passage import Passage
from lm.errors import InputError, UsageError
from lm.fields import measured, within
from lm.storage import as_local_file, digest, file_inside, place_of
from lm.tokenizer.encoding import no_panic

FILES = ("config.json", "model.safetensors", "tokenizer.json")
KINDS = ("BertModel", "BertForSequenceClassification")
NORMALIZERS = ("BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents")
PRE_TOKENIZERS = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits")
"""Allowed steps of the tokenizer. Others can lengthen a text without limit ("Replace"), until memory is exhausted, or
backtrack endlessly ("Split")."""
MOST_TOKENIZER_BYTES = 1 << 26
DIGITS = 3
"""Decimals of a score: float32 sums differ between machines in the last bits."""


@dataclass(frozen=True)
class EmbeddingFilter(Filter):
    """Drop texts by the score of a linear head on a BERT embedding (FineWeb-Edu, arXiv:2406.17557, section 4)."""

    min_score: float
    """Minimum score. FineWeb-Edu keeps scores that round to 3 or more, so 2.5."""
    model: str = measured()
    """Path or URL of a folder with config.json, model.safetensors and tokenizer.json, as on the hub."""
    head: str = measured(default="")
    """A .safetensors file with `weight` (1, width) and `bias` (1,) to use instead of the model's own head; "": the
    model's own."""
    pooling: Literal["pooler", "first", "mean"] = measured(default="pooler")
    """Input of the head: BERT's pooler, the first token's state (arctic-embed), or the mean of all states."""
    max_tokens: int = measured(default=512)
    """Maximum tokens; longer texts are truncated."""

    name = "embedding"
    title = "Score of an embedding"
    summary = "A linear head on a BERT's embedding scores each text, as FineWeb-Edu does (arXiv:2406.17557, section 4)."
    signals = (Signal("embedding_score", "Score", "What the head gives; FineWeb-Edu's is from 0 to 5.", 0.05),)
    rules = (Rule("embedding_low_score", "embedding_score", "below", "min_score"),)

    def __post_init__(self):
        super().__post_init__()
        if not math.isfinite(self.min_score):
            raise UsageError(f"{self.path()}.min_score is {self.min_score}; give a finite number.")
        within(self, self.path(), 3, 100_000, "max_tokens")
        if not self.model:
            raise UsageError(f"{self.path()}.model is empty: name the folder of a model, or leave the filter out.")

    def external_inputs(self) -> dict[str, object]:
        encoder = load(self)
        return {str(path): digest(path)[1] for path in encoder.files}

    def measure(self, passage: Passage) -> list[float]:
        return [round(load(self).score(passage.text), DIGITS)]


class Encoder:
    """A BERT with a linear head. `tensors` have the names of transformers, without the prefix "bert."."""

    def __init__(self, config: dict, tensors: dict[str, np.ndarray], tokenizer, pooling: str, files: list[Path]):
        self.tensors, self.tokenizer, self.pooling, self.files = tensors, tokenizer, pooling, files
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.epsilon = config.get("layer_norm_eps", 1e-12)

    def score(self, text: str) -> float:
        with no_panic(f"the tokenizer of documents.embedding.model cannot encode {text[:60]!r}…; choose another model"):
            ids = self.tokenizer.encode(text).ids
        return self.score_of(ids)

    def score_of(self, ids: list[int]) -> float:
        """Return the output of the head for a text of these tokens."""
        states_TD = self.states(ids)
        match self.pooling:
            case "pooler":
                pooled_D = np.tanh(self.linear("pooler.dense", states_TD[0]))
            case "first":
                pooled_D = states_TD[0]
            case _:
                pooled_D = states_TD.mean(axis=0)
        return float(self.linear("classifier", pooled_D)[0])

    def states(self, ids: list[int]) -> np.ndarray:
        """Return the states of the last layer, (T, D) float32."""
        table = lambda name: self.tensors[f"embeddings.{name}_embeddings.weight"]
        x_TD = table("word")[ids] + table("position")[: len(ids)] + table("token_type")[0]
        x_TD = self.normed("embeddings.LayerNorm", x_TD)
        for layer in range(self.layers):
            at = f"encoder.layer.{layer}"
            x_TD = self.normed(f"{at}.attention.output.LayerNorm", x_TD + self.attention(at, x_TD))
            inner_TF = gelu(self.linear(f"{at}.intermediate.dense", x_TD))
            x_TD = self.normed(f"{at}.output.LayerNorm", x_TD + self.linear(f"{at}.output.dense", inner_TF))
        return x_TD

    def attention(self, at: str, x_TD: np.ndarray) -> np.ndarray:
        tokens, width = x_TD.shape
        split = lambda name: (
            self.linear(f"{at}.attention.self.{name}", x_TD).reshape(tokens, self.heads, -1).transpose(1, 0, 2)
        )
        q_HTK, k_HTK, v_HTK = split("query"), split("key"), split("value")
        weights_HTT = q_HTK @ k_HTK.transpose(0, 2, 1) / np.float32(math.sqrt(width // self.heads))
        weights_HTT = np.exp(weights_HTT - weights_HTT.max(axis=-1, keepdims=True))
        weights_HTT /= weights_HTT.sum(axis=-1, keepdims=True)
        mixed_TD = (weights_HTT @ v_HTK).transpose(1, 0, 2).reshape(tokens, width)
        return self.linear(f"{at}.attention.output.dense", mixed_TD)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def normed(self, name: str, x_TD: np.ndarray) -> np.ndarray:
        centred_TD = x_TD - x_TD.mean(axis=-1, keepdims=True)
        scale = 1 / np.sqrt(np.square(centred_TD).mean(axis=-1, keepdims=True) + np.float32(self.epsilon))
        return centred_TD * scale * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    """Exact GELU with the error function, as in BERT."""
    from scipy.special import erf

    return (x * 0.5 * (1 + erf(x / np.float32(math.sqrt(2))))).astype(np.float32)


@functools.lru_cache(maxsize=2)
def load(config: EmbeddingFilter) -> Encoder:
    """Load the model of the filter, once per process. Raises InputError if it cannot be read or a file is a link out of
    its folder, UsageError if it is not one of KINDS or has no head."""
    try:
        place = place_of(config.model)
        here = lambda name: file_inside(place, name) if isinstance(place, Path) else as_local_file(place / name)
        files = [here(name) for name in FILES]
        about = json.loads(files[0].read_text(encoding="utf-8"))
        kind = (about.get("architectures") or ["?"])[0]
        if kind not in KINDS or about.get("hidden_act", "gelu") != "gelu":
            raise UsageError(
                f"documents.embedding.model = {config.model} is a {kind} with hidden_act {about.get('hidden_act')}; "
                f"what is read here is {' or '.join(KINDS)} with gelu. Choose such a model."
            )
        tensors = read_tensors(files[1])
        tokenizer = read_tokenizer(files[2], min(config.max_tokens, about["max_position_embeddings"]))
        if config.head:
            files.append(as_local_file(place_of(config.head)))
            tensors |= {f"classifier.{name}": value for name, value in read_tensors(files[-1]).items()}
        width = about["hidden_size"]
        found = tensors.get("classifier.weight", np.empty(0))
        if found.shape != (1, width) or tensors.get("classifier.bias", np.empty(0)).shape != (1,):
            raise UsageError(
                f"documents.embedding: the head of {config.head or config.model} is of shape {found.shape}, but one "
                f"score of a width of {width} needs (1, {width}), and a bias of (1,). Name another by "
                "documents.embedding.head."
            )
        encoder = Encoder(about, tensors, tokenizer, config.pooling, files)
        encoder.score("a")  # fail before any work if a tensor is missing
    except InputError:
        raise
    except Exception as error:  # safetensors and tokenizers raise their own classes
        raise InputError(
            f"documents.embedding.model = {config.model} cannot be read: {error!r}. Give a folder with "
            f"{', '.join(FILES)} of a BERT."
        ) from error
    return encoder


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Return {name: float32 array} of a .safetensors, without the prefix "bert."."""
    from safetensors.numpy import load_file

    return {name.removeprefix("bert."): value.astype(np.float32) for name, value in load_file(path).items()}


def read_tokenizer(path: Path, max_tokens: int):
    from tokenizers import Tokenizer

    check_steps(path)
    with no_panic(f"{path} is no tokenizer that can be read; choose another model"):
        tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def check_steps(path: Path) -> None:
    """Raise InputError if a tokenizer.json is too large, or has steps that a BERT tokenizer does not have."""
    if (size := path.stat().st_size) > MOST_TOKENIZER_BYTES:
        raise InputError(f"{path} is {size:,} bytes, but at most {MOST_TOKENIZER_BYTES:,} are read of a tokenizer.")
    contents = json.loads(path.read_bytes())
    for name, known in (("normalizer", NORMALIZERS), ("pre_tokenizer", PRE_TOKENIZERS)):
        steps = [contents.get(name)]
        for step in steps:  # grows during the loop
            if step is not None and step["type"] == "Sequence":
                steps += step.get(f"{name}s") or step["pretokenizers"]
            elif step is not None and step["type"] not in known:
                raise InputError(
                    f"{path} has the {name} {step['type']!r}, but a BERT's has {', '.join(known)}. Choose another "
                    "model."
                )

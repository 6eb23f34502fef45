"""Inspections of a model: loss per token, next-token logits, activations of each layer, and its parts."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from lm.inspect.inspector import ALTERNATIVES, MOST_POSITIONS, Inspector
from lm.serving.fields import Fields, wrong
from lm.serving.inspections import Inspection
from lm.serving.protocol import encode_text
from viewer.page import packed
from viewer.training_data import read_samples, visible
from viewer.window.window_run import WindowRun

MOST_CHARACTERS = 100_000
"""Maximum characters of a text."""
MOST_TOKENS = 4096
"""Maximum tokens of a text to read; the rest is dropped, and counted."""
TOP = 5
RECORDED_PROMPTS, RECORDED_STEPS, RECORDED_NUMBERS = 4, 16, 1 << 20
"""Limits of an exported page; a number takes about 5 bytes."""

LANE = "model"
"""Lane of inspections that compute with the served model, and share the cache of an Inspector."""


def inspections(run: WindowRun) -> list[Inspection]:
    asked = ("text", "tokens", "step")
    view = lambda answer: lambda fields: answer(run, run.at(fields), fields)
    return [
        Inspection("score", (*asked, "top"), view(score), "each token's loss in bits, and likelier tokens", LANE),
        Inspection("next", asked, view(next_logits), "logits of the token after a text", LANE),
        Inspection("layers", (*asked, "top"), view(layers), "attention, residual norms and logit lens of a text", LANE),
        Inspection("architecture", (), lambda fields: architecture(run), "the network's parts, as a tree"),
    ]


def to_record(run: WindowRun) -> Iterator[tuple[str, dict]]:
    """Yield the requests of an exported page: the run's first prompts, and the final samples for them, at steps spread
    over the run; fewer of each if the answers would be large."""
    yield "architecture", {}
    room, prompts = RECORDED_NUMBERS // 2, []  # at the served step, and at least at one numbered step
    for prompt in run.experiment.sample.prompts[:RECORDED_PROMPTS]:
        numbers = recorded_numbers(run.served, prompt)
        if numbers <= room or not prompts:
            prompts.append(prompt)
            room -= numbers
    once = sum(recorded_numbers(run.served, prompt) for prompt in prompts)
    steps = spread(run.steps(), max(1, min(RECORDED_STEPS, RECORDED_NUMBERS // max(1, once) - 1)))
    samples = {one.prompt: one.prompt + one.continuation for one in reversed(read_samples(run.paths.samples)[1])}
    for step in (None, *steps):
        at = {} if step is None else {"step": step}
        for prompt in prompts:
            yield "score", {"text": prompt, **at}
            yield "next", {"text": prompt, **at}
            yield "layers", {"text": prompt, **at}
            if prompt in samples:
                yield "score", {"text": samples[prompt], **at}


def recorded_numbers(inspector: Inspector, prompt: str) -> int:
    """Estimate how many numbers the answers for one prompt at one step have: logits, attention, and logit lens, in
    which each guess counts as five."""
    config = inspector.config
    positions = min(MOST_POSITIONS, 1 + len(inspector.tokenizer.encode(prompt)))
    attention = config.layers * config.heads * positions**2
    return inspector.tokenizer.vocab_size + attention + (config.layers + 1) * positions * TOP * 5


def spread(steps: list[int], most: int) -> list[int]:
    """At most `most` of the steps, in order: the first, the last, and some between them; the last if `most` is 1."""
    if len(steps) <= most:
        return steps
    return [steps[-1 - round(one * (len(steps) - 1) / max(1, most - 1))] for one in range(most)][::-1]


def given(fields: Fields, inspector: Inspector) -> list[int]:
    """Return the token ids of the field "text" or "tokens". Raises ApiError 400 if both are set, or one is invalid."""
    tokens = fields.get("tokens")
    if tokens is None:
        return encode_text(fields.string("text", "", MOST_CHARACTERS), inspector.tokenizer, param="text")
    if fields.get("text") is not None:
        raise wrong("tokens", tokens, "left out if there is a text")
    return fields.token_ids("tokens", inspector.tokenizer.vocab_size, MOST_CHARACTERS)


def score(run: WindowRun, inspector: Inspector, fields: Fields) -> dict[str, object]:
    found = inspector.score(
        given(fields, inspector), fields.integer("top", TOP, 0, ALTERNATIVES), MOST_TOKENS - 1, fields.before_compiling
    )
    likeliest = tops(inspector, found.top_ids_NK, found.top_probabilities_NK)
    columns = zip(found.ids_N.tolist(), found.pieces, found.bits_N.tolist(), found.ranks_N.tolist(), strict=True)
    tokens = [
        {"id": id, "text": text_of(inspector, id), "bytes": piece.hex(), "bits": short(bits), "rank": rank, "top": top}
        for (id, piece, bits, rank), top in zip(columns, likeliest, strict=True)
    ]
    return {
        "tokens": tokens,
        "bits": short(float(found.bits_N.astype(np.float64).sum())),
        "bytes": sum(map(len, found.pieces)),
        "bits_per_byte": running(found.bits_per_byte_N),
        "gzip_bits_per_byte": running(found.gzip_bits_per_byte_N),
        "dropped": found.dropped,
    }


def next_logits(run: WindowRun, inspector: Inspector, fields: Fields) -> dict[str, object]:
    found = inspector.next_logits(given(fields, inspector), MOST_TOKENS - 1, fields.before_compiling)
    return {"logits": packed(found.logits_V), "tokens": found.tokens, "dropped": found.dropped}


def layers(run: WindowRun, inspector: Inspector, fields: Fields) -> dict[str, object]:
    found = inspector.layers(
        given(fields, inspector), fields.integer("top", TOP, 0, ALTERNATIVES), fields.before_compiling
    )
    ids_EtK, probabilities_EtK = found.lens_ids_ETK, found.lens_probabilities_ETK
    lens = [tops(inspector, *stage) for stage in zip(ids_EtK, probabilities_EtK, strict=True)]
    return {
        "tokens": [text_of(inspector, id) for id in found.ids_T.tolist()],
        "ids": found.ids_T.tolist(),
        "head": 1,
        "attention": packed(found.attention_LHTS),
        "windows": [inspector.config.window(layer) for layer in range(inspector.config.layers)],
        "residual": {
            "embedding": packed(found.stream_ET[0]),
            "attention": packed(found.after_attention_LT),
            "mlp": packed(found.stream_ET[1:]),
        },
        "added": {"attention": packed(found.attention_out_LT), "mlp": packed(found.mlp_out_LT)},
        "lens": lens,
        "came": packed(np.nan_to_num(found.next_probability_ET)),
        "came_rank": packed(found.next_rank_ET),
        "dropped": found.dropped,
    }


def architecture(run: WindowRun) -> dict[str, object]:
    return run.served.architecture().as_json() | {"name": run.name, "config": dataclasses.asdict(run.experiment.model)}


def tops(inspector: Inspector, ids_NK: np.ndarray, probabilities_NK: np.ndarray) -> list[list[list]]:
    """Return the likeliest tokens of each row as [[id, text, probability], ...]. Both arrays are (rows, likeliest)."""
    rows = zip(ids_NK.tolist(), probabilities_NK.tolist(), strict=True)
    return [[[id, text_of(inspector, id), short(p)] for id, p in zip(*row, strict=True)] for row in rows]


def text_of(inspector: Inspector, id: int) -> str:
    return visible(inspector.tokenizer.token_bytes(id))


def running(values_N: np.ndarray) -> list[float | None]:
    """Convert bits per byte, up to each token of a text, to JSON numbers; NaN (before the first byte) becomes None."""
    return [None if math.isnan(value) else short(value) for value in values_N.tolist()]


def short(value: float) -> float:
    """Round to six significant digits, about the precision of float32."""
    return float(f"{value:.6g}")

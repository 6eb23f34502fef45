"""Model views of the window: the Inspector's numbers as JSON, bounded, at every kept step."""

import base64
import concurrent.futures
import dataclasses
import functools
import json
import math
import threading
import weakref
from collections.abc import Callable

import jax
import numpy as np
import pytest

from configs.experiment.run_folder import Loaded, RunFolder
from lm.errors import InputError
from lm.inspect.inspector import Inspector
from lm.model.transformer import Transformer
from lm.parallel import one_device_mesh
from lm.serving.fields import ApiError, Fields
from lm.serving.inspections import InspectRoutes
from lm.serving.protocol import Limits
from lm.storage import write_json
from lm.tokenizer import train_bpe
from lm.tokenizer.characters import CharacterTokenizer
from tests.corpus import texts, tiny_experiment
from tests.lm.model_configs import random_model
from tests.viewer.inspected import ask
from viewer.page import key_of
from viewer.window import inspections, model_views
from viewer.window.inspections import record
from viewer.window.window_run import TO_READ, WindowRun

EXPERIMENT = tiny_experiment()
CONFIG = EXPERIMENT.model
TOKENIZER = train_bpe(texts(20), EXPERIMENT.tokenizer)
TEXT = "The miller\u202e <b>\n"


@functools.cache
def model_of(step: int) -> Transformer:
    return jax.tree.map(lambda leaf: leaf * step / 4, random_model(CONFIG))


@pytest.fixture
def run(tmp_path, monkeypatch) -> WindowRun:
    """At step 8, with a checkpoint at 4 that is another model."""

    def load(self, mesh, step, experiment) -> Loaded:
        return Loaded(experiment, TOKENIZER, model_of(step), mesh, step, "")

    for step in ("4", "8"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    monkeypatch.setattr(RunFolder, "load", load)
    loaded = Loaded(EXPERIMENT, TOKENIZER, model_of(8), one_device_mesh(CONFIG), 8, "")
    return WindowRun(EXPERIMENT, tmp_path, loaded, "tiny")


def unpacked(array: dict) -> np.ndarray:
    kind = {"float32": "<f4", "int32": "<i4"}[array["type"]]
    return np.frombuffer(base64.b64decode(array["data"]), kind).reshape(array["shape"])


def test_score_has_each_token_and_continues_along_the_text(run):
    found, expected = ask(run, "score", text=TEXT, top=3), run.served.score(TEXT, 3)
    assert [one["id"] for one in found["tokens"]] == expected.ids_N.tolist() == TOKENIZER.encode(TEXT)
    assert b"".join(bytes.fromhex(one["bytes"]) for one in found["tokens"]) == TEXT.encode()
    np.testing.assert_allclose([one["bits"] for one in found["tokens"]], expected.bits_N, rtol=1e-5)
    assert [one["rank"] for one in found["tokens"]] == expected.ranks_N.tolist()
    for one, ids_K in zip(found["tokens"], expected.top_ids_NK.tolist(), strict=True):
        assert [id for id, _, _ in one["top"]] == ids_K
    assert found["bits"] == pytest.approx(sum(one["bits"] for one in found["tokens"]), rel=1e-5)
    assert found["bytes"] == len(TEXT.encode()) and found["dropped"] == 0
    assert found["bits_per_byte"][-1] == pytest.approx(found["bits"] / found["bytes"], rel=1e-5)
    shown = "".join(one["text"] for one in found["tokens"])
    assert shown.isprintable() and "␣" in shown and shown.endswith("⏎")


def test_next_and_layers_equal_the_arrays_of_the_inspector(run):
    found, expected = ask(run, "next", text=TEXT), run.served.next_logits(TEXT)
    np.testing.assert_array_equal(unpacked(found["logits"]), expected.logits_V)
    assert found["tokens"] == len(TOKENIZER.encode(TEXT)) and len(expected.logits_V) == TOKENIZER.vocab_size
    found, expected = ask(run, "layers", text=TEXT, top=2), run.served.layers(TEXT, 2)
    arrays = {
        "attention": (found["attention"], expected.attention_LHTS),
        "embedding": (found["residual"]["embedding"], expected.stream_ET[0]),
        "behind attention": (found["residual"]["attention"], expected.after_attention_LT),
        "behind MLP": (found["residual"]["mlp"], expected.stream_ET[1:]),
        "attention added": (found["added"]["attention"], expected.attention_out_LT),
        "MLP added": (found["added"]["mlp"], expected.mlp_out_LT),
        "came": (found["came"], np.nan_to_num(expected.next_probability_ET)),
        "rank": (found["came_rank"], expected.next_rank_ET),
    }
    for name, (packed, array) in arrays.items():
        np.testing.assert_array_equal(unpacked(packed), array, err_msg=name)
    assert [[[one[0] for one in place] for place in stage] for stage in found["lens"]] == expected.lens_ids_ETK.tolist()
    assert found["ids"] == [TOKENIZER.bos_id, *TOKENIZER.encode(TEXT)] and found["head"] == 1
    assert len(found["tokens"]) == len(found["ids"]) and found["windows"] == [None] * CONFIG.layers


def test_the_last_stage_of_the_lens_agrees_with_score_and_next(run):
    scored, inside = ask(run, "score", text=TEXT), ask(run, "layers", text=TEXT)
    bits = -np.log2(unpacked(inside["came"])[-1, :-1])
    np.testing.assert_allclose(bits, [one["bits"] for one in scored["tokens"]], rtol=1e-4)
    logits_V = unpacked(ask(run, "next", text=TEXT)["logits"])
    id, _, probability = inside["lens"][-1][-1][0]
    assert probability == pytest.approx(math.exp(logits_V[id]) / np.exp(logits_V).sum(), rel=1e-4)


def test_each_step_is_its_own_model(run):
    bits = lambda **fields: [one["bits"] for one in ask(run, "score", text="The miller", **fields)["tokens"]]
    other = Inspector(model_of(4), CONFIG, TOKENIZER, one_device_mesh(CONFIG))
    np.testing.assert_allclose(bits(step=4), other.score("The miller").bits_N, rtol=1e-5)
    assert bits() == bits(step=8) != bits(step=4)
    with pytest.raises(ApiError, match="step is 5; it must be a step with a checkpoint or snapshot: 4, 8"):
        bits(step=5)


def with_memory(run: WindowRun, free: Callable[[], int]) -> WindowRun:
    """The run on devices with that many free bytes."""
    served = Loaded(EXPERIMENT, TOKENIZER, run.served.model, run.served.mesh, 8, "")
    return WindowRun(EXPERIMENT, run.paths.root, served, "tiny", free=lambda devices: free())


@pytest.mark.parametrize("room", [0.5, 1.6, 2.7, 99.0])
def test_models_of_other_steps_are_cached_as_memory_allows(run, room):
    """`room`: how many models fit on the device next to the served one; loading one takes half as much again."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(run.served.model))
    held: dict[int, weakref.ref[Inspector]] = {}
    alive = lambda: sum(one() is not None for one in held.values())
    other = with_memory(run, lambda: int(size * (room - alive())))
    for step in (1, 2, 3):
        (run.paths.checkpoints / str(step)).mkdir()
    for step in (1, 2, 3, 4, 1):
        if room < TO_READ:
            with pytest.raises(ApiError, match=f"step {step} takes .* MB free.*--step {step}") as refused:
                ask(other, "next", step=step)
            assert refused.value.status == 503 and refused.value.param == "step"
            assert {f"{size / 1e6:,.1f}", f"{room * size / 1e6:,.1f}"} <= {*str(refused.value).split()}
        else:
            held[step] = weakref.ref(other.at(Fields({"step": step}, ("step",))))
            assert alive() <= room
    assert ask(other, "next") == ask(run, "next")
    assert alive() == {0.5: 0, 1.6: 1, 2.7: 2, 99.0: 4}[room]


@pytest.mark.slow
def test_an_exported_page_uses_the_served_step_if_no_other_fits(run):
    alone = with_memory(run, lambda: 0)
    assert {json.loads(key[key.index("{") :]).get("step") for key in record(alone, (model_views,))} == {None, 8}


def test_architecture_has_the_config_and_the_names(run):
    found = ask(run, "architecture")
    assert found["name"] == "tiny" and found["config"] == json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    assert found["parameters"] == run.served.parameters == sum(leaf.size for leaf in jax.tree.leaves(model_of(8)))
    assert {"name", "kind", "about", "shape", "parameters", "children", "axes", "path", "formula"} <= found.keys()
    (blocks,) = [one for one in found["children"] if one["kind"] == "blocks"]
    assert [one["layer"] for one in blocks["children"]] == list(range(CONFIG.layers))
    (attention,) = [one for one in blocks["children"][0]["children"] if one["kind"] == "attention"]
    assert (attention["heads"], attention["kv_heads"], attention["head_channels"]) == (2, 1, 16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": 3}, "text is 3; it must be a string"),
        ({"text": "x" * 100_001}, r"\(100,001 characters\); it must be of at most 100,000 characters here"),
        ({"text": "x", "tokens": [1]}, "it must be left out if there is a text"),
        ({"tokens": "1"}, "it must be a list of token ids"),
        ({"tokens": [1, True]}, "it must be a list of token ids"),
        ({"tokens": [1, -1]}, "tokens is -1; it must be of ids from 0 to 319"),
        ({"tokens": [320]}, "tokens is 320; it must be of ids from 0 to 319"),
        ({"top": 21}, "top is 21; it must be from 0 to 20 here"),
    ],
)  # fmt: skip
def test_invalid_fields_are_rejected_by_name(run, fields, message):
    with pytest.raises(ApiError, match=message) as refused:
        ask(run, "score", **fields)
    assert refused.value.status == 400 and refused.value.param in fields


def test_a_text_outside_a_character_vocabulary_is_an_invalid_field(run):
    few = CharacterTokenizer("\n abc")
    with pytest.raises(ApiError, match="The character 'd'") as refused:
        model_views.given(Fields({"text": "abcd"}, ("text",)), Inspector(model_of(8), CONFIG, few, run.served.mesh))
    assert refused.value.status == 400 and not isinstance(refused.value, InputError)


def test_long_texts_are_truncated_and_counted(run):
    found = ask(run, "score", text="a mill " * 1_000)
    read = len(found["tokens"])
    assert read == 31 and read + found["dropped"] == len(TOKENIZER.encode("a mill " * 1_000))
    assert ask(run, "layers", text="a mill " * 1_000)["dropped"] == found["dropped"]


@pytest.mark.slow
def test_an_exported_page_has_the_prompts_at_every_step_and_the_samples(run):
    samples = [{"prompt": "The miller", "temperature": 0.0, "text": "The miller sold"}]
    write_json(run.paths.final_samples, {"samples": samples})
    recorded = record(run)
    for name in ("score", "next", "layers"):
        for at in ({}, {"step": 4}, {"step": 8}):
            for text in EXPERIMENT.sample.prompts:
                assert recorded[key_of(name, {"text": text, **at})] == ask(run, name, text=text, **at)
    assert recorded[key_of("score", {"text": "The miller sold", "step": 4})]
    assert recorded["architecture{}"] == ask(run, "architecture")


def test_steps_of_a_long_run_are_spread():
    steps = list(range(0, 10_000, 7))
    found = model_views.spread(steps, 16)
    assert len(found) == 16 and found == sorted({*found}) and (found[0], found[-1]) == (0, steps[-1])
    assert model_views.spread([1, 2], 16) == [1, 2] and model_views.spread([1, 2, 3], 1) == [3]
    assert model_views.spread([1, 2, 3], 2) == [1, 3]


@pytest.mark.parametrize(
    ("numbers", "steps", "prompts"), [(1 << 20, {None, 4, 8}, 2), (3_000, {None, 8}, 2), (10, {None, 8}, 1)]
)
def test_an_exported_page_respects_its_maximum_size(run, monkeypatch, numbers, steps, prompts):
    monkeypatch.setattr(model_views, "RECORDED_NUMBERS", numbers)
    asked = [fields for name, fields in model_views.to_record(run) if name == "layers"]
    assert {fields.get("step") for fields in asked} == steps
    assert len({fields["text"] for fields in asked}) == prompts
    held = sum(model_views.recorded_numbers(run.served, fields["text"]) for fields in asked)
    assert held <= numbers or (len(steps), prompts) == (2, 1)


def test_concurrent_requests_get_the_same_answers_as_single_ones(run):
    """Bit for bit, whatever is compiled, read or cached meanwhile; in the lane that launch.serve uses."""
    asked: list[tuple[str, dict]] = [
        (name, {"text": text} | step)
        for name in ("score", "next", "layers") for text in ("", "The mill", "The miller carried grain") for step in
        ({}, {"step": 4})
    ]  # fmt: skip
    asked += [("write", {"text": "The", "tokens": 3, "temperature": 0.0}), ("architecture", {}), ("model", {})] * 2
    known = {one.name: one for one in inspections.inspections_of(run)}

    def answers(routes: InspectRoutes, threads: int) -> list[bytes]:
        one = lambda given: routes.answer_of(known[given[0]], json.dumps(given[1]).encode(), threading.Event())
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, asked))

    routes = InspectRoutes(known.values(), Limits(context=CONFIG.context_length))
    together = answers(routes, len(asked))
    run.served._remembered.clear()
    assert together == answers(routes, 1)
    assert routes.doings == {} and not any(lane.locked() for lane in routes.lanes.values())

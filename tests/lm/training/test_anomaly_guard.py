"""Anomaly guard: a skipped step changes only the batch counter, and is logged."""

import contextlib
import io
import math
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from lm.checkpoints.manager import named_items
from lm.config import MeshConfig, SpikeConfig
from lm.data.batches import BatchSource
from lm.errors import InputError
from lm.parallel import make_mesh
from lm.training import step as train_step
from lm.training.anomaly_guard import LEAST_DEVIATION, accept, bounds, make_guard
from lm.training.loop import train
from lm.training.optimizer import make_optimizer
from lm.training.state import abstract_state, initializer
from tests.corpus import tiny_experiment
from tests.poison import poisoned as poisoned_by
from tests.train_runs import bits, copy, rows

EXPERIMENT = tiny_experiment()
MODEL = replace(EXPERIMENT.model, layers=1)
STEPS = 30
CONFIG = replace(
    EXPERIMENT.train, steps=STEPS, spikes=SpikeConfig(window=8, deviations=100.0, stop_after=4), checkpoint_every=5,
    validate_every=0, sample_every=0, log_every=7, mesh=MeshConfig(fsdp=2),
)  # fmt: skip
POISON = {3: math.nan, 11: math.inf, 12: 1e6, 13: -math.inf, 20: 1e6, 25: 1e6, 30: math.nan}
"""{step: factor of its gradients}. At 3 the window is not full; 11 to 13 are consecutive; 30 is the last step."""


def judged_naively(rows: list[tuple[float, float]], config: SpikeConfig) -> list[bool]:
    """Whether each (loss, norm) is accepted, by the definition, in float64."""
    taken, accepted = [], []
    for row in rows:
        good = all(math.isfinite(x) for x in row)
        if good and config.window and len(accepted) >= config.window:
            recent = np.array(accepted[-config.window :], np.float64)
            deviation = np.maximum(recent.std(axis=0), LEAST_DEVIATION * np.abs(recent.mean(axis=0)))
            good = bool((np.array(row) <= recent.mean(axis=0) + config.deviations * deviation).all())
        taken.append(good)
        if good:
            accepted.append(row)
    return taken


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("window", [0, 5, 1])
def test_steps_are_judged_by_the_definition(window):
    generator = np.random.default_rng(window)
    losses, norms = generator.normal(3, 0.1, 300), generator.lognormal(0, 0.3, 300)
    losses[generator.random(300) < 0.05] += 2
    norms[generator.random(300) < 0.05] *= 50
    losses[generator.random(300) < 0.03] = math.nan
    norms[generator.random(300) < 0.03] = math.inf
    judged = [(float(np.float32(a)), float(np.float32(b))) for a, b in zip(losses, norms, strict=True)]
    config = SpikeConfig(window=window)
    guard, found, in_row = make_guard(config), [], []
    step = jax.jit(lambda guard, loss, norm: accept(guard, loss, norm, config))
    for loss, norm in judged:
        taken, guard = step(guard, jnp.float32(loss), jnp.float32(norm))
        found.append(bool(taken))
        in_row.append(int(guard.in_row))
    assert found == judged_naively(judged, config)
    assert found.count(False) >= 5
    assert found.count(True) >= 5
    assert int(guard.accepted) == found.count(True)
    expected = 0
    for taken, count in zip(found, in_row, strict=True):
        expected = 0 if taken else expected + 1
        assert count == expected


def test_without_a_window_no_finite_step_is_skipped():
    taken, _ = accept(make_guard(SpikeConfig()), jnp.float32(1e30), jnp.float32(1e30), SpikeConfig())
    assert bool(taken)
    assert np.isinf(bounds(make_guard(SpikeConfig()), SpikeConfig())).all()


def test_steps_without_a_gradient_do_not_count():
    """As in reinforcement learning, if no answer of a step has a reward."""
    config, guard = SpikeConfig(window=3), make_guard(SpikeConfig(window=3))
    for norm in (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.1, 0.0, 0.9, 1.2):
        taken, guard = accept(guard, jnp.float32(-norm), jnp.float32(norm), config)
        assert taken, norm
    assert not accept(guard, jnp.float32(-1.0), jnp.float32(9.0), config)[0]


@pytest.fixture(scope="module")
def poisoned(tokens, tmp_path_factory) -> Generator[tuple[Path, BatchSource]]:
    """A run folder with shards, and its batches; gradients are multiplied by POISON."""
    run = copy(tokens, tmp_path_factory.mktemp("poisoned") / "run")
    source = BatchSource(run / "tokens", "train", MODEL.context_length, CONFIG.batch_size, CONFIG.seed, 1)
    real = train_step.loss_and_gradients
    train_step.loss_and_gradients = poisoned_by(source, POISON)  # ty: ignore[invalid-assignment]
    yield run, source
    train_step.loss_and_gradients = real


@pytest.fixture(scope="module")
def trained(poisoned, tmp_path_factory) -> tuple[Path, str]:
    """(a trained run, its output)."""
    run, out = copy(poisoned[0], tmp_path_factory.mktemp("trained") / "run"), io.StringIO()
    with contextlib.redirect_stdout(out):
        train(MODEL, CONFIG, run)
    return run, out.getvalue()


@pytest.mark.slow
def test_a_run_with_skipped_steps_equals_one_that_skipped_their_batches(poisoned, trained):
    (_, source), (run, out) = poisoned, trained
    mesh = make_mesh(CONFIG.mesh, MODEL, CONFIG.batch_size)
    optimizer = make_optimizer(CONFIG.optimizer, STEPS)
    abstract = abstract_state(MODEL, optimizer, mesh, CONFIG.spikes)
    step_function = train_step.compile_step(optimizer, abstract, mesh, CONFIG)
    state = initializer(MODEL, optimizer, CONFIG.seed, mesh, CONFIG.spikes)()
    for step in range(1, STEPS + 1):
        if step not in POISON:
            state, metrics = step_function(state._replace(step=jnp.array(step - 1, jnp.int32)), source.batch(step - 1))
            assert bool(metrics["applied"]), step
    end = state._replace(step=jnp.array(STEPS, jnp.int32), guard=state.guard._replace(in_row=jnp.array(1, jnp.int32)))
    expected = {f"{item}.{name}": x for item, named in named_items(end).items() for name, x in named.items()}
    assert bits(run) == {name: np.asarray(x).tobytes() for name, x in expected.items()}

    lines = rows(run, "skipped_steps.jsonl")
    assert [line["step"] for line in lines] == list(POISON)
    assert [line["in_row"] for line in lines] == [1, 1, 2, 3, 1, 1, 1]
    ids = pq.read_table(run / "tokens/documents")["id"].to_pylist()
    for line in lines:
        origins = source.documents(line["step"] - 1)
        named = [[ids[row] for row in sorted(origin.documents)] for origin in origins]
        assert [one["documents"] for one in line["sequences"]] == named
        assert f"step {line['step']} is skipped: " in out
        assert named[0][0] in out
    assert max(row.get("skipped", 0) for row in rows(run)) == len(POISON)
    assert "NaN" not in (run / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_a_run_with_skipped_steps_resumes_bit_for_bit_and_logs_each_once(trained, tmp_path):
    expected = bits(trained[0])
    run = copy(trained[0], tmp_path / "run", 21, 26, 30)  # 20 and 25 were skipped, so the steps after them were saved
    told = (run / "skipped_steps.jsonl").read_text()
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"10", "15"}
    train(MODEL, CONFIG, run)
    assert (run / "skipped_steps.jsonl").read_text().replace(str(run), str(trained[0])) == told
    assert bits(run) == expected


def test_too_many_consecutive_skips_stop_the_run_at_the_last_good_checkpoint(poisoned, tmp_path):
    run = copy(poisoned[0], tmp_path / "run")
    config = replace(CONFIG, spikes=replace(CONFIG.spikes, stop_after=3), checkpoint_every=1)
    with pytest.raises(InputError, match=r"at step 13 .*the 3 steps up to it were all skipped"):
        train(MODEL, config, run)
    assert max(int(path.name) for path in (run / "checkpoints").iterdir()) == 10

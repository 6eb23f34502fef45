"""EMA parameters follow the recurrence, resume bit for bit on any mesh, and are used for evaluation."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lm.checkpoints.manifest import verify
from lm.config import MeshConfig, StartConfig
from lm.errors import UsageError
from lm.model.param_names import named_leaves
from lm.parallel import make_mesh
from lm.training.loop import train
from lm.training.memory import training_bytes
from lm.training.optimizer import make_optimizer
from lm.training.state import initializer, make_state, state_shardings
from lm.training.step import update
from lm.trusted_code import module_code, trust
from tests.corpus import tiny_experiment
from tests.lm.training.test_step import batch_of
from tests.lm.trees import leaf_pairs
from tests.run_files import restore_model
from tests.train_runs import bits, copy, forget, steps_there

TINY = tiny_experiment()
MODEL = replace(TINY.model, layers=1)
EVALUATOR = "tests.lm.evaluation.outside_evaluator.LargestParameter"
STEPS, DECAY = 6, 0.4
CONFIG = replace(
    TINY.train, steps=STEPS, checkpoint_every=1, checkpoints_kept=9, validate_every=STEPS, validation_batches=1,
    sample_every=0, ema_decay=DECAY, mesh=MeshConfig(fsdp=2, zero1=True), evaluators=("validation", EVALUATOR),
    snapshot_steps=(3,),
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_evaluators_are_trusted():
    trust(module_code(EVALUATOR.rpartition(".")[0]))


@pytest.fixture
def finished(tokens, tmp_path) -> Path:
    run = copy(tokens, tmp_path / "run")
    train(MODEL, CONFIG, run)
    return run


def arrays(run: Path, step: int, prefix: str) -> dict[str, np.ndarray]:
    found = bits(run, step).items()
    return {name.removeprefix(prefix): np.frombuffer(x, np.float32) for name, x in found if name.startswith(prefix)}


@pytest.mark.slow
def test_the_average_follows_the_recurrence_and_resumes_bit_for_bit(finished):
    state = make_state(MODEL, make_optimizer(CONFIG.optimizer, STEPS), CONFIG.seed, CONFIG.spikes)
    expected = {name: np.asarray(x, np.float64).ravel() for name, x in named_leaves(state.model).items()}
    for step in range(1, STEPS + 1):
        parameters, average = arrays(finished, step, "training.parameters."), arrays(finished, step, "model.")
        decay = min(DECAY, step / (step + 9))
        for name, value in parameters.items():
            expected[name] = decay * expected[name] + (1 - decay) * value
            assert_allclose(average[name], expected[name], rtol=1e-5, atol=1e-8, err_msg=f"{step} {name}")
    assert expected.keys() == average.keys() == parameters.keys()
    assert not np.allclose(average["embedding"], parameters["embedding"])

    whole = bits(finished)
    train(MODEL, CONFIG, forget(finished, 3, 4, 5, 6))
    assert steps_there(finished) == [*range(1, STEPS + 1)] and bits(finished) == whole


@pytest.mark.slow
def test_evaluations_snapshots_and_commands_use_the_average_and_training_does_not(finished, tokens, tmp_path):
    average = arrays(finished, STEPS, "model.")
    largest = max(float(np.abs(value).max()) for value in average.values())
    assert verify(finished / f"checkpoints/{STEPS}")["largest_parameter"] == pytest.approx(largest, rel=1e-7)
    for name, value in named_leaves(restore_model(MODEL, finished / "checkpoints")).items():
        assert_array_equal(np.asarray(value).ravel(), average[name])

    plain = copy(tokens, tmp_path / "plain")
    train(MODEL, replace(CONFIG, ema_decay=0.0, snapshot_steps=()), plain)
    for name, value in arrays(plain, STEPS, "model.").items():
        assert_allclose(arrays(finished, STEPS, "training.parameters.")[name], value, rtol=1e-5, atol=1e-7)

    after = copy(tokens, tmp_path / "after")
    still = replace(CONFIG.optimizer, learning_rate=1e-12, final_learning_rate=1e-12, warmup_steps=0)
    start = StartConfig(str(finished / f"checkpoints/{STEPS}"))
    train(MODEL, replace(CONFIG, start=start, optimizer=still, steps=1, snapshot_steps=()), after)
    for prefix in ("model.", "training.parameters."):
        for name, value in arrays(after, 1, prefix).items():
            assert_allclose(value, average[name], rtol=1e-6, atol=1e-9)


def test_a_skipped_step_keeps_the_average_which_is_sharded_like_the_parameters():
    config = replace(CONFIG, mesh=MeshConfig(fsdp=8))
    optimizer = make_optimizer(config.optimizer, STEPS)
    mesh = make_mesh(config.mesh, MODEL, 8)
    state = initializer(MODEL, optimizer, 0, mesh, config.spikes, ema=True)()
    for ours, theirs in leaf_pairs(state.ema, state.model):
        assert ours.sharding == theirs.sharding
    wanted = state_shardings(state, mesh)
    assert jax.tree.leaves(wanted.ema) == jax.tree.leaves(wanted.model)
    held = training_bytes(MODEL, config)
    assert held["averaged parameters"] == held["parameters"] == sum(x.nbytes for x in jax.tree.leaves(state.ema))

    alone = make_state(MODEL, optimizer, 0, config.spikes, ema=True)
    batch = batch_of(MODEL)
    broken = batch._replace(weights_BT=jnp.full(batch.weights_BT.shape, jnp.nan))
    plain = replace(config, mesh=MeshConfig(), loss_chunks=1)
    after, metrics = jax.jit(lambda state, batch: update(state, batch, optimizer, plain))(alone, broken)
    assert not metrics["applied"] and int(after.step) == 1
    for ours, before in leaf_pairs(after.ema, alone.ema):
        assert_array_equal(ours, before)


def test_bfloat16_parameters_are_rejected():
    narrow = replace(TINY.model, parameter_dtype="bfloat16")
    with pytest.raises(UsageError, match=r"train.ema_decay = 0.4 needs float32 parameters, .* = bfloat16"):
        replace(TINY, model=narrow, train=replace(TINY.train, ema_decay=DECAY))

"""FLOPs by manual calculation and by XLA."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest

from configs.experiment import load_config
from lm.config import REMAT, ModelConfig
from lm.data.batches import host_batch
from lm.model.cost import flops_per_token, recomputed_flops_per_token
from lm.model.transformer import Transformer
from lm.training.step import loss_and_gradients
from tests.corpus import tiny_experiment
from tests.lm.model_configs import FAMILIES, LLAMA
from tests.run_files import REPOSITORY


def test_flops_equal_a_manual_calculation():
    """GPT-2: 6 x (124,439,808 - 1,024 x 768 positions) + 12 x 12 layers x 1,024 x 768. Llama 3 8B: 6 x (8,030,261,248 -
    128,256 x 4,096 embeddings, which are only lookups) + 12 x 32 layers x 8,192 x 4,096."""
    gpt2, llama = (load_config(REPOSITORY / f"configs/{name}.py").model for name in ("gpt2_124m", "llama3_8b"))
    assert flops_per_token(gpt2) == 6 * 123_653_376 + 113_246_208 == 855_166_464
    assert flops_per_token(llama) == 6 * 7_504_924_672 + 12_884_901_888 == 57_914_449_920
    windows = replace(
        llama, attention_windows=(1024, 0), scan_layers=False
    )  # an eighth of the FLOPs in every other layer
    assert flops_per_token(windows) == 6 * 7_504_924_672 + 12_884_901_888 * 9 // 16


WIDE = {"layers": 1, "vocab_size": 1024, "context_length": 64, "width": 256, "heads": 8, "mlp_width": 1024}


@pytest.mark.fast_rows
@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("gpt2", False), ("modern", False)])
def test_flops_are_within_2_percent_of_the_count_by_xla(family, tied):
    """XLA counts all operations of the compiled gradient, also elementwise ones. It counts the body of a loop only
    once, hence one layer and one part of the loss; the context is so short that masked scores are computed, too."""
    config = replace(FAMILIES[family], **WIDE, kv_heads=4 if family == "llama" else 8, tie_embeddings=tied)
    assert counted_flops(config) == pytest.approx(flops_per_token(config), rel=0.02)


@functools.cache
def counted_flops(config: ModelConfig, **train) -> float:
    """FLOPs per token, counted by the compiler."""
    model = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
    ints_BT = np.zeros((8, config.context_length), np.int32)
    batch = host_batch(ints_BT, ints_BT, ints_BT, ints_BT.astype(np.float32))
    train = replace(tiny_experiment().train, loss_chunks=1, **train)
    counted = jax.jit(loss_and_gradients, static_argnums=2).lower(model, batch, train).compile().cost_analysis()
    assert counted is not None
    return counted["flops"] / ints_BT.size


@pytest.mark.fast_rows
@pytest.mark.parametrize("name", ["minimal_with_context", "save_qkv_proj", "full"])
def test_flops_recomputed_by_remat_equal_the_additional_count_by_xla(name):
    """Within 5% of the FLOPs of the block: attention counts half, and elementwise operations do not count."""
    config = replace(LLAMA, **WIDE, kv_heads=4)
    again = counted_flops(config, remat=name) - counted_flops(config)
    block = flops_per_token(replace(config, layers=2)) - flops_per_token(config)
    assert again == pytest.approx(recomputed_flops_per_token(config, REMAT[name]), abs=block / 20)
    assert recomputed_flops_per_token(config, REMAT["none"]) == 0

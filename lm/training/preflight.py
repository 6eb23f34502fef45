"""Check a training run before its shards exist, so that settings that must fail are rejected before hours of data work.
This module does not import JAX; checks that need it run in a separate process."""

import importlib.util
from pathlib import Path

from lm.config import ModelConfig, TokenizerConfig, TrainConfig
from lm.data.mixture import mixture_of
from lm.data.records import check_request, read_manifest
from lm.devices import Devices, describe, training_mesh_sizes
from lm.errors import UsageError
from lm.evaluation.evaluators import check_evaluators, task_files
from lm.fields import code_names
from lm.metrics.writers import WANDB_REMEDY
from lm.model.attention.choice import check_attention
from lm.own_process import in_own_process
from lm.storage import Place
from lm.tokenizer.training import load_tokenizer
from lm.training.memory import check_training_memory
from lm.trusted_code import checked_code


def check_tokenizer(config: TokenizerConfig) -> str | None:
    """Load the published tokenizer of the config, downloading missing files, and return its fingerprint; None if the
    tokenizer is still to be trained. Raises UsageError for a vocabulary that cannot be reproduced exactly, InputError
    for a missing or damaged file."""
    return load_tokenizer(config).fingerprint if config.load else None


def check_training(
    tokenizer: TokenizerConfig,
    model: ModelConfig,
    config: TrainConfig,
    own: Path,
    fingerprint: str | None = None,
    devices: Devices | None = None,
) -> None:
    """Raise UsageError or InputError if a run with this config must fail. Called before its shards are written to
    `own`.

    `fingerprint` is the fingerprint of the tokenizer, if known. `devices` are by default the devices of this machine.
    """
    if config.wandb_project and importlib.util.find_spec("wandb") is None:
        raise UsageError(f"train.wandb_project is {config.wandb_project!r}, but wandb is not installed. {WANDB_REMEDY}")
    evaluators = config.evaluators if config.validate_every else ()
    check_evaluators(evaluators, "train.evaluators")
    task_files(evaluators, config.tasks, "train.tasks.data")
    for folder in mixture_of(config, own):
        if folder != own:
            check_source(folder, tokenizer, model, fingerprint)
    for option, names in (code_names(model, "model.") | code_names(config, "train.")).items():
        for name in names:
            checked_code(name, option)
    if config.start.checkpoint:
        config.start.folder()
    devices = devices or in_own_process(devices_with_memory, model, config)
    sizes = training_mesh_sizes(config, model, devices)
    for stage in config.stages(model.context_length).between(0, config.steps):
        check_attention(stage.model(model), devices.target, sizes["context"])
    if config.start.checkpoint:
        in_own_process(check_start, model, config, fingerprint)


def check_source(folder: Place, tokenizer: TokenizerConfig, model: ModelConfig, fingerprint: str | None) -> None:
    """Raise UsageError or InputError if shards in a folder of train.mixture are missing or do not match the run."""
    manifest = read_manifest(folder)
    if manifest.vocab_size != tokenizer.vocab_size:
        raise UsageError(
            f"train.mixture names {folder}, which was written with a tokenizer of {manifest.vocab_size} symbols, but "
            f"tokenizer.vocab_size = {tokenizer.vocab_size}. All shards of a run need the same tokenizer: give the "
            "tokenizer/ of one run as tokenizer.load of the other."
        )
    check_request(manifest, folder, "train", model.context_length, fingerprint)


def devices_with_memory(model: ModelConfig, config: TrainConfig) -> Devices:
    """Return all devices (initializes JAX). Raises UsageError if training cannot fit into their memory, or if the
    model's block cannot generate the samples."""
    import jax

    if config.sample_every:
        check_samples(model)
    check_training_memory(model, config, jax.local_devices())
    return describe(jax.devices())


def check_samples(model: ModelConfig) -> None:
    """Raise UsageError if the model's block cannot generate text. Imports JAX."""
    from lm.model.transformer import check_cache

    check_cache(model)


def check_start(model: ModelConfig, config: TrainConfig, fingerprint: str | None) -> None:
    """Check train.start.checkpoint, except its arrays, with lm.training.restore_or_init.check_start. Imports JAX."""
    from lm.training.restore_or_init import check_start

    check_start(model, config, fingerprint, files=False)

"""What can be known of a training run before it has shards: a setting that can only fail is refused before hours of
work on the data. No jax here; what needs it is asked in a process of its own."""

import importlib.util
from pathlib import Path

from lm.config import ModelConfig, TokenizerConfig, TrainConfig
from lm.data.mixture import mixture_of
from lm.data.records import check_request, read_manifest
from lm.devices import Devices, find_devices, training_mesh_sizes
from lm.errors import UsageError
from lm.evaluation.evaluators import check_evaluators, check_tasks
from lm.metrics.writers import WANDB_REMEDY
from lm.model.attention.choice import check_attention
from lm.own_process import in_own_process
from lm.storage import Place
from lm.tokenizer.training import load_tokenizer
from lm.training.memory import check_training_memory


def check_tokenizer(config: TokenizerConfig) -> str | None:
    """The fingerprint of the tokenizer, or None where it is yet to be trained.

    Raises as lm.tokenizer.published.load_published, of which a file that is missing is downloaded.
    """
    return load_tokenizer(config).fingerprint if config.load else None


def check_training(
    tokenizer: TokenizerConfig,
    model: ModelConfig,
    config: TrainConfig,
    own: Path,
    fingerprint: str | None = None,
    devices: Devices | None = None,
) -> None:
    """Raises UsageError or InputError where training, on shards that are yet to be written into `own`, must fail.

    `fingerprint` is that of the tokenizer, where it is known. `devices` are those of this machine, unless given.
    """
    if config.wandb_project and importlib.util.find_spec("wandb") is None:
        raise UsageError(f"train.wandb_project is {config.wandb_project!r}, but wandb is not installed. {WANDB_REMEDY}")
    evaluators = config.evaluators if config.validate_every else ()
    check_evaluators(evaluators, "train.evaluators")
    check_tasks(evaluators, config.tasks, "train.tasks.data")
    for folder in mixture_of(config, own):
        if folder != own:
            check_source(folder, tokenizer, model, fingerprint)
    if config.start.checkpoint:
        config.start.folder()
    devices = devices or in_own_process(devices_with_memory, model, config)
    sizes = training_mesh_sizes(config, model, devices)
    for stage in config.stages(model.context_length).between(0, config.steps):
        check_attention(stage.model(model), devices.target, sizes["context"])
    if config.start.checkpoint:
        in_own_process(check_start, model, config, fingerprint)


def check_source(folder: Place, tokenizer: TokenizerConfig, model: ModelConfig, fingerprint: str | None) -> None:
    """Raises UsageError or InputError where a folder of train.mixture does not fit the run."""
    manifest = read_manifest(folder)
    if manifest.vocab_size != tokenizer.vocab_size:
        raise UsageError(
            f"train.mixture names {folder}, which was written with a tokenizer of {manifest.vocab_size} symbols, "
            f"but tokenizer.vocab_size = {tokenizer.vocab_size}. All shards of a run need one tokenizer: "
            "name the tokenizer/ of the one run in tokenizer.load of the other."
        )
    check_request(manifest, folder, "train", model.context_length, fingerprint)


def devices_with_memory(model: ModelConfig, config: TrainConfig) -> Devices:
    """All devices that JAX finds. Raises UsageError if training cannot fit into them. Starts JAX."""
    import jax

    devices = find_devices()
    check_training_memory(model, config, jax.local_devices())
    return devices


def check_start(model: ModelConfig, config: TrainConfig, fingerprint: str | None) -> None:
    """lm.training.restore_or_init.check_start, which is imported only where it runs: it needs JAX."""
    from lm.training.restore_or_init import check_start

    check_start(model, config, fingerprint, files=False)

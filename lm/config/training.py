"""Configuration of a training run: length, batches, data, devices, evaluation, checkpoints."""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from lm.config.evaluation import TasksConfig
from lm.config.model import ModelConfig
from lm.config.optimizer import OptimizerConfig
from lm.config.remat import RematName, RematPolicy, Tensor, remat_policy
from lm.config.stages import NO_END, Stage, Stages
from lm.errors import UsageError
from lm.fields import NAMES_CODE, Config, not_hashed, positive, within
from lm.run_paths import RunPaths
from lm.storage import Place, Url, place_of


@dataclass(frozen=True)
class MeshConfig(Config):
    """Device mesh: the number of devices on each axis. Devices that no axis uses share the batch (data parallelism).
    The defaults suit one machine."""

    fsdp: int = 1
    """Devices over which each parameter and its optimizer state are sharded (ZeRO-3, arXiv:1910.02054)."""
    tensor: int = 1
    """Devices over which heads, MLP and vocabulary are sharded (Megatron, arXiv:1909.08053)."""
    context: int = 1
    """Devices over which each sequence is sharded, as well as parameters and optimizer state: for contexts whose
    activations do not fit on one device. Keys and values are gathered for attention (arXiv:2407.21783, section
    3.3.2)."""
    zero1: bool = not_hashed(default=False)
    """Also shard the optimizer state over the data-parallel devices (ZeRO-1, arXiv:1910.02054): gradients are
    reduce-scattered, each device updates its shard of the parameters, and the shards are gathered. The sharding of the
    parameters does not change."""

    def check_values(self):
        positive(self, "train.mesh", "fsdp", "tensor", "context")


@dataclass(frozen=True)
class SpikeConfig(Config):
    """Skip steps with a loss or gradient norm that is not finite, or is far above recent values. A skipped step does
    not change parameters and optimizer state."""

    window: int = 0
    """Number of accepted steps over which the mean and standard deviation of loss and gradient norm are computed. The
    limit applies once there are that many; 0: accept every finite step."""
    deviations: float = 6.0
    """Skip a step whose loss or gradient norm is above the mean plus this many standard deviations (OLMo 2,
    arXiv:2501.00656)."""
    stop_after: int = not_hashed(default=10)
    """Stop training after this many skipped steps in a row."""

    def check_values(self):
        positive(self, "train.spikes", "deviations", "stop_after")
        within(self, "train.spikes", 0, math.inf, "window")


@dataclass(frozen=True)
class StartConfig(Config):
    """Start training from a checkpoint of another run instead of random parameters."""

    checkpoint: str = ""
    """Folder of the checkpoint, such as runs/a/checkpoints/800, or one in a bucket (s3://, gs://); empty: random
    parameters. It must exist until this run is finished: choose one that its run keeps, or a copy."""
    take: Literal["parameters", "everything"] = "parameters"
    """parameters: only the parameters, to train from step 0 with any optimizer. everything: resume at the step of the
    checkpoint. Floating-point types are cast to those of this config."""

    def folder(self) -> Place:
        """Return the folder of the checkpoint. Raises UsageError if it does not exist or is not a checkpoint."""
        place = place_of(self.checkpoint)
        if isinstance(place, Url) and place.scheme not in ("s3", "gs"):
            raise UsageError(
                f"train.start.checkpoint = {self.checkpoint!r}: a checkpoint must be on a disk, in s3:// or gs://. "
                "Download it, and give its folder."
            )
        folder = place.absolute() if isinstance(place, Path) else place
        if not (folder.is_dir() and folder.name.isdecimal()):
            inside = within if (within := folder / RunPaths.checkpoints).is_dir() else folder
            names = [path.name for path in inside.iterdir()] if inside.is_dir() else []
            steps = sorted((name for name in names if name.isdecimal()), key=int)
            there = f" In {inside} there are {', '.join(steps)}." if steps else ""
            raise UsageError(
                f"train.start.checkpoint = {self.checkpoint!r} is not the folder of a checkpoint, such as "
                f"runs/a/checkpoints/800.{there}"
            )
        return folder


@dataclass(frozen=True)
class MixtureSource(Config):
    """Shards of another run that are also trained on."""

    tokens: str
    """Folder with the shards and their manifest.json, on a disk or in a bucket (s3://, gs://): the tokens/ folder of a
    run with the same tokenizer."""
    weight: float
    """Relative number of sequences from this folder, compared with the other weights in train.mixture and
    train.own_weight; 0 if only later stages of train.mixture_schedule read it."""

    def check_values(self):
        if not self.tokens:
            raise UsageError("train.mixture has a source with empty tokens; give the tokens/ folder of another run.")
        if not 0 <= self.weight < math.inf:
            raise UsageError(
                f"train.mixture has {self.tokens} with a weight of {self.weight}; weights must be 0 or more and finite."
            )


@dataclass(frozen=True)
class MixtureStage(Config):
    """Weights that the mixture has from a given step on."""

    step: int
    """Number of steps before these weights apply."""
    weights: tuple[float, ...]
    """Weight of the run's own shards, then of each folder in train.mixture, in that order; 0: not read in this
    stage."""

    def check_values(self):
        if not all(0 <= weight < math.inf for weight in self.weights) or not sum(self.weights):
            weights = ", ".join(f"{weight:g}" for weight in self.weights)
            raise UsageError(
                f"train.mixture_schedule has the weights ({weights}) from step {self.step} on; all must be finite and "
                "at least 0, and at least one above 0."
            )


XLA_OPTION = re.compile(r"xla_\w+=\S+")
MOST_STAGES = 100
"""Maximum number of stages of a schedule; each batch shape is compiled before the first step."""


@dataclass(frozen=True)
class LoraConfig(Config):
    """Low-rank adaptation (LoRA, arXiv:2106.09685): train.start.checkpoint's parameters are frozen, and each linear map
    within blocks computes x W + (alpha / rank) x A B, of which only A and B are trained."""

    rank: int = 0
    """Columns of A and rows of B; 0: no adapters, all parameters are trained."""
    alpha: float = 16.0
    """Scale of the adapters' outputs, divided by the rank."""
    maps: tuple[str, ...] = ()
    """Linear maps that get an adapter, such as attention.query attention.value; empty: all of attention and MLP."""

    def check_values(self):
        within(self, "train.lora", 0, 2**16, "rank")
        positive(self, "train.lora", "alpha")


@dataclass(frozen=True)
class TrainConfig(Config):
    """Steps, batches, data, devices, evaluation and checkpoints of the training run."""

    steps: int
    """Optimizer updates. Raise it to extend a run, finished or not: from its last checkpoint on, the learning rate
    follows the schedule of the new length."""
    batch_size: int
    """Sequences of model.context_length tokens per step, over all devices; must be a multiple of the data axis of the
    mesh. With train.batch_schedule, the size of the first batches."""
    seed: int
    """Random seed of initial weights, data order, dropout and samples."""
    optimizer: OptimizerConfig
    validate_every: int = not_hashed()
    """Steps between evaluations on held-out documents; the last step is evaluated too. 0: no evaluation, and no
    validation split is needed."""
    validation_batches: int = not_hashed()
    """Batches of validation shards per validation loss during training."""
    sample_every: int = not_hashed()
    """Steps between text samples, which are printed and saved; the last step has one too. 0: no samples."""
    sample_prompt: str = not_hashed()
    """Prompt of the samples during training; empty: start of a document."""
    sample_tokens: int = not_hashed()
    """Length of the samples in tokens, including the prompt."""
    checkpoint_every: int = not_hashed()
    """Steps between checkpoints; the last step is always saved. 0: only the last step."""
    checkpoints_kept: int = not_hashed()
    """Number of newest checkpoints to keep."""
    log_every: int = not_hashed()
    """Steps between rows in metrics.jsonl; the last step is always logged. 0: only the last step."""
    mesh: MeshConfig = not_hashed()  # noqa: RUF009
    """Device mesh, and how parameters are sharded over it."""
    loss_chunks: int = not_hashed()
    """Compute the logits in this many chunks of the sequence (a divisor of model.context_length) to save memory: with a
    large vocabulary, logits are the largest tensor of a step. Changes the order of summation, as another mesh does."""
    loader_threads: int = not_hashed()
    """Threads that read and decode records."""
    skip_untrained: bool = not_hashed(default=False)
    """Sort the tokens, and compute no logits in those of the `loss_chunks` that have no trained tokens. Saves time if
    most tokens of a batch are not trained, as in conversations, where only replies are."""
    layout: str = not_hashed(default="")
    """Row of configs/layouts.py that sets mesh, micro_batches, remat, loss_chunks, xla_options and model.scan_layers;
    on the command line, the hardware is enough, such as v6e:8x8. Empty: no row."""
    micro_batches: int = not_hashed(default=1)
    """Gradient accumulation: compute the batch in this many parts (a divisor of batch_size) and sum their gradients in
    float32, so that only one part must fit into memory. A part must be a multiple of the data-parallel devices. With
    train.batch_schedule, this is the number of parts of the largest batch; smaller batches have fewer parts, none of
    them larger."""
    remat: RematName = not_hashed(default="none")  # noqa: RUF009
    """Rematerialization policy: which tensors of a block are recomputed in the backward pass to save memory
    (arXiv:1604.06174), from none to full. See lm/config/remat.py."""
    remat_keep: tuple[Tensor, ...] = not_hashed(default=())
    """Tensors of a block to keep in device memory, overriding the policy."""
    remat_offload: tuple[Tensor, ...] = not_hashed(default=())
    """Tensors of a block to offload to host memory, overriding the policy."""
    z_loss: float = 0.0
    """Weight of logsumexp(logits)**2, added to the loss (PaLM, arXiv:2204.02311: 1e-4); 0: none. Logged losses do not
    include it."""
    ema_decay: float = 0.0
    """Decay rate per step of an exponential moving average of the parameters, which evaluations, samples, snapshots and
    exports then use instead of the parameters; 0: no average. After n steps the decay is at most (1 + n) / (10 + n)."""
    dropout: float = 0.0
    """Fraction of values set to 0 after the embedding, each attention and each MLP (arXiv:1207.0580)."""
    mixture: tuple[MixtureSource, ...] = ()
    """Further folders of shards to train on, as FOLDER WEIGHT on the command line. Validation uses only the run's own
    shards."""
    own_weight: float = 1.0
    """Relative number of sequences from the run's own shards, compared with the weights in train.mixture; 0: none."""
    xla_options: tuple[str, ...] = not_hashed(default=())
    """XLA compile options for the training step, as name=value: xla_gpu_... for NVIDIA GPUs, all others for TPUs;
    options for other devices are ignored. XLA_FLAGS and LIBTPU_INIT_ARGS also apply."""
    shuffle_block: int = 1
    """Shuffle blocks of this many consecutive windows (sequences of context_length tokens), then the windows within
    groups of blocks; 1: shuffle single windows. In a bucket, a block is read by one request, so blocks of 1 MB or more
    are cheap. For at least this many steps in a row, all batches come from the same blocks: 64 of them, or one per
    sequence of the batch if that is more."""
    batch_schedule: tuple[tuple[int, int], ...] = ()
    """Pairs (step, batch size): after that many steps, batches have this many sequences instead of train.batch_size.
    The learning rate schedule still counts steps. STEP SIZE STEP SIZE ... on the command line."""
    context_schedule: tuple[tuple[int, int], ...] = ()
    """Pairs (step, context length): after that many steps, each sequence of model.context_length tokens is cut into
    equal sequences of this length, which must divide it. A batch then has more, shorter sequences with the same tokens.
    STEP LENGTH STEP LENGTH ... on the command line; step 0 is the start."""
    mixture_schedule: tuple[MixtureStage, ...] = ()
    """Weights that replace those in train.own_weight and train.mixture after a number of steps. Each folder continues
    where the previous stage stopped. STEP:OWN_WEIGHT,WEIGHT,... on the command line, one weight per folder."""
    wandb_project: str = not_hashed(default="")
    """Project in Weights & Biases that also receives the metrics (needs `make add PACKAGE=wandb`; WANDB_MODE=offline
    keeps them in the run folder); empty: none."""
    profile_step: int = not_hashed(default=0)
    """First step to profile, into profile/ of the run folder, for XProf and Perfetto; 0: no profile."""
    profile_steps: int = not_hashed(default=3)
    """Number of steps to profile."""
    checkpoints_kept_every: int = not_hashed(default=0)
    """Also keep one checkpoint permanently for every N steps: the first at or after each multiple of N. 0: none."""
    checkpoints_kept_best: int = not_hashed(default=0)
    """Also keep this many checkpoints with the lowest validation losses, among those whose step was validated."""
    patience: int = 0
    """End training after this many evaluations in a row without a lower validation loss, or at train.steps; the result
    is the step with the lowest one, and later checkpoints are deleted. 0: disabled, the result is the last step."""
    snapshot_steps: tuple[int, ...] = not_hashed(default=())
    """Steps whose parameters are saved permanently in snapshots/, without optimizer state, to study later how the model
    learned; 0: the initial parameters. Steps after train.steps are ignored."""
    spikes: SpikeConfig = SpikeConfig()
    start: StartConfig = StartConfig()
    lora: LoraConfig = LoraConfig()
    """Low-rank adapters, trained instead of all parameters."""
    verify_shards: bool = not_hashed(default=True)
    """Compare the SHA-256 of all shards on disk with the manifest. The first step waits up to a minute for the result;
    after that, training stops at the next checkpoint if a shard is damaged. A restart reads only files that have
    changed. If off, and for shards in a bucket, damage is detected when a damaged record is read."""
    evaluators: Annotated[tuple[str, ...], NAMES_CODE] = not_hashed(default=("validation",))
    """Evaluators to run every validate_every steps: names from the table in lm/evaluation/evaluators.py, or your own
    classes as my_package.my_module.MyEvaluator."""
    hooks: Annotated[tuple[str, ...], NAMES_CODE] = not_hashed(default=())
    """Your own classes to call every few steps, as my_module.MyHook (docs/how_to_change_it.md)."""
    step_metrics: Annotated[tuple[str, ...], NAMES_CODE] = not_hashed(default=())
    """Your own functions, as my_module.my_metric, that compute values to log inside of the step, from its state, batch,
    gradients and update (docs/how_to_change_it.md)."""
    activation_metrics: tuple[str, ...] = not_hashed(default=())
    """Activations whose root mean square is logged, by name or pattern: blocks.*.mlp.out, blocks.0.attention.residual
    (lm/model/transformer.py). Scalars that your own block passes to `tap` are logged unchanged."""
    tasks: TasksConfig = not_hashed(default=TasksConfig())  # noqa: RUF009
    """Data of the benchmarks among the evaluators."""
    checkpoint_every_seconds: float = not_hashed(default=0.0)
    """Also save a checkpoint if this many seconds have passed since the last save started; 0: disabled."""
    join_timeout: float = not_hashed(default=300.0)
    """Seconds that the processes of a run wait for each other at the start; then an error lists the missing ones
    (docs/long_runs.md)."""
    start_seconds: float = not_hashed(default=1800.0)
    """Report a hang if a part of the start (join, compilation, restore) takes this many seconds: the stacks of all
    threads are printed. launch.supervise restarts it after twice that time. 0: disabled."""
    hang_seconds: float = not_hashed(default=120.0)
    """Report a hang after this many seconds without a step, if that is also 20 times the usual time: the stacks of all
    threads are written to hangs/ of the run folder. 0: disabled."""

    def check_values(self):
        within(self, "train", 0, math.inf, "own_weight", "z_loss")
        if not self.own_weight and not sum(source.weight for source in self.mixture):
            raise UsageError(
                "train.own_weight is 0 and train.mixture has no folder with a weight above 0, so there is nothing to "
                "train on. Set train.own_weight above 0, or add a folder."
            )
        counts = ("batch_size", "validation_batches", "sample_tokens", "checkpoints_kept", "loss_chunks")
        within(self, "train", 1, math.inf, *counts, "micro_batches", "profile_steps", "shuffle_block")
        self.check_hooks()
        if both := sorted({*self.remat_keep} & {*self.remat_offload}):
            raise UsageError(
                f"train.remat_keep and train.remat_offload both have {', '.join(both)}. A tensor is either kept on "
                "the device or offloaded to the host: remove it from one of them."
            )
        if self.remat == "none" and (self.remat_keep or self.remat_offload):
            raise UsageError(
                "train.remat is none, which keeps everything on the device, but train.remat_keep is "
                f"[{' '.join(self.remat_keep)}] and train.remat_offload is [{' '.join(self.remat_offload)}]. Choose a "
                "policy that recomputes the rest, such as train.remat = full."
            )
        if malformed := [option for option in self.xla_options if not XLA_OPTION.fullmatch(option)]:
            raise UsageError(
                f"train.xla_options has {malformed[0]!r}. Give options of XLA as name=value, such as "
                "xla_gpu_enable_latency_hiding_scheduler=true."
            )
        within(self, "train", 0, 1e6, "hang_seconds", "start_seconds", "checkpoint_every_seconds")
        within(self, "train", 1, 1e6, "join_timeout")
        if 0 < self.start_seconds <= self.join_timeout:
            raise UsageError(
                f"train.start_seconds = {self.start_seconds:g} is not above train.join_timeout = "
                f"{self.join_timeout:g}, so a wait for other processes would count as a hang. Raise it, or set it to 0."
            )
        within(self, "train", 1, 2**31 - 1, "steps")  # the step counter is int32
        within(self, "train", 1, 1024, "loader_threads")
        within(self, "train", 0, 2**32 - 1, "seed")
        within(self, "train", 0, 1, "ema_decay", "dropout", below=True)
        self.check_schedules()
        if self.largest_batch % self.micro_batches:
            name = "the largest batch of train.batch_schedule" if self.batch_schedule else "train.batch_size"
            raise UsageError(
                f"train.micro_batches = {self.micro_batches} does not divide {name} = {self.largest_batch}. "
                "Choose a divisor of that number."
            )
        if self.lora.rank and (self.ema_decay or self.optimizer.muon):
            other = f"ema_decay = {self.ema_decay}" if self.ema_decay else "optimizer.muon"
            remedy = "Set that to 0" if self.ema_decay else "Use a config without it, such as configs/finetune.py"
            raise UsageError(
                f"train.lora.rank = {self.lora.rank} does not work with train.{other}. {remedy}, or set "
                "train.lora.rank to 0."
            )
        if self.optimizer.warmup_steps + self.optimizer.decay_steps > self.steps:
            raise UsageError(
                f"train.optimizer: warmup_steps = {self.optimizer.warmup_steps} and decay_steps = "
                f"{self.optimizer.decay_steps} are more than train.steps = {self.steps}. Shorten them, or train longer."
            )
        profiled = self.profile_step + self.profile_steps - 1
        if self.profile_step < 0 or (self.profile_step and profiled > self.steps):
            raise UsageError(
                f"train.profile_step = {self.profile_step} and profile_steps = {self.profile_steps} are not within "
                f"train.steps = {self.steps}. Choose steps between 1 and {self.steps}, or profile_step = 0 for no "
                "profile."
            )
        if self.optimizer.warmup_steps >= self.steps:
            raise UsageError(
                f"train.optimizer.warmup_steps = {self.optimizer.warmup_steps} is not below train.steps = "
                f"{self.steps}. Warm up for fewer steps, or train longer."
            )

    @property
    def remat_policy(self) -> RematPolicy | None:
        """Rematerialization policy of a block; None: save everything that the backward pass needs."""
        return remat_policy(self.remat, self.remat_keep, self.remat_offload)

    @property
    def largest_batch(self) -> int:
        """Size of the largest batch of any stage, in sequences of model.context_length tokens."""
        return max([self.batch_size, *(size for _, size in self.batch_schedule)])

    @property
    def reads_own_shards(self) -> bool:
        """Whether any stage reads the run's own shards."""
        return self.own_weight > 0 or any(stage.weights[0] > 0 for stage in self.mixture_schedule)

    def stages(self, context_length: int) -> Stages:
        """Return the stages of this run, given model.context_length. Raises UsageError if a length in
        train.context_schedule does not divide it."""
        for _, length in self.context_schedule:
            if context_length % length:
                raise UsageError(
                    f"train.context_schedule has {length} tokens, which does not divide model.context_length = "
                    f"{context_length}. Use divisors: sequences are split into equal parts."
                )
        weights: list[tuple[int, tuple[float, ...]]] = [(stage.step, stage.weights) for stage in self.mixture_schedule]
        if weights:
            weights.insert(0, (0, (self.own_weight, *(source.weight for source in self.mixture))))
        own = 0 if self.reads_own_shards else 1  # lm.data.mixture.mixture_of omits them too
        steps = {0, *(step for step, _ in (*self.batch_schedule, *self.context_schedule, *weights))}
        found, before = [], 0
        for first, end in itertools.pairwise([*sorted(steps), NO_END]):
            size = value_at(first, ((0, self.batch_size), *self.batch_schedule))
            length = value_at(first, ((0, context_length), *self.context_schedule))
            # Device counts that divide this batch and a part of the largest batch also divide a part of this one.
            part = self.largest_batch // self.micro_batches
            micro_batches = min(count for count in divisors(size // math.gcd(size, part)) if size <= count * part)
            now = value_at(first, weights)[own:] if weights else ()
            found.append(Stage(first, end, before, size, context_length // length, length, micro_batches, now))
            before += (end - first) * size
        return Stages(found)

    def check_model(self, model: ModelConfig) -> None:
        """Raise UsageError if a setting is impossible with this model."""
        if self.ema_decay and model.parameter_dtype != "float32":
            raise UsageError(
                f"train.ema_decay = {self.ema_decay} needs float32 parameters, but model.parameter_dtype = "
                f"{model.parameter_dtype}: bfloat16 would lose small changes of the average. Set model.parameter_dtype "
                "= float32, or train.ema_decay = 0."
            )

    def of_stage(self, stage: Stage) -> "TrainConfig":
        """Return a config without schedules and mixture, with the batch size and micro-batches of `stage`."""
        return replace(
            self, batch_size=stage.windows, micro_batches=stage.micro_batches, batch_schedule=(), context_schedule=(),
            mixture_schedule=(), mixture=(), own_weight=1.0,
        )  # fmt: skip

    def check_schedules(self) -> None:
        """Raise UsageError if a schedule is invalid, whatever the model."""
        folders = len(self.mixture) + 1
        for stage in self.mixture_schedule:
            if len(stage.weights) != folders:
                raise UsageError(
                    f"train.mixture_schedule has {len(stage.weights)} weights from step {stage.step} on, but there are "
                    f"{folders} folders: the run's own and {folders - 1} of train.mixture. Give a weight for each."
                )
        for number, source in enumerate(self.mixture, 1):
            if not source.weight and not any(stage.weights[number] for stage in self.mixture_schedule):
                raise UsageError(
                    f"train.mixture has {source.tokens} with a weight of 0, and no stage of train.mixture_schedule "
                    "changes it. Remove it, or give it a weight above 0."
                )
        mixture_steps = tuple((stage.step, 1) for stage in self.mixture_schedule)
        for name, least, pairs in (
            ("batch_schedule", 1, self.batch_schedule), ("context_schedule", 0, self.context_schedule),
            ("mixture_schedule", 1, mixture_steps),
        ):  # fmt: skip
            if len(pairs) > MOST_STAGES:
                raise UsageError(f"train.{name} has {len(pairs):,} stages; give at most {MOST_STAGES}.")
            for (before, _), (step, value) in itertools.pairwise(((least - 1, 1), *pairs)):
                if not before < step < 2**31:
                    raise UsageError(
                        f"train.{name} has step {step}; steps must be at least {least}, increase, and be below 2**31. "
                        f"{f'The step before it is {before}' if before >= least else 'It is the first one'}. Change it."
                    )
                if not 1 <= value < 2**31:
                    raise UsageError(f"train.{name} has {value} from step {step} on; give values from 1 to 2**31 - 1.")

    def check_hooks(self) -> None:
        """Raise UsageError for invalid intervals of evaluation, samples, checkpoints and logs."""
        by_loss = "checkpoints_kept_best", "patience"
        every = ("validate_every", "sample_every", "checkpoint_every", "log_every", "checkpoints_kept_every")
        within(self, "train", 0, math.inf, *every, "snapshot_steps", *by_loss)
        for name in [name for name in by_loss if getattr(self, name)]:
            needs = f"train.{name} = {getattr(self, name)} needs validation losses, but "
            if not self.validate_every:
                raise UsageError(f"{needs}train.validate_every = 0. Set train.validate_every, or train.{name} = 0.")
            if not {"validation", "bits_per_byte"} & {*self.evaluators}:
                raise UsageError(
                    f"{needs}train.evaluators is {' '.join(self.evaluators)}. Add validation, or set train.{name} = 0."
                )
        if self.validate_every and not self.evaluators:
            raise UsageError(
                f"train.validate_every = {self.validate_every}, but train.evaluators is empty. Add one, such as "
                "validation, or set train.validate_every = 0."
            )


def value_at[Value](step: int, pairs: Sequence[tuple[int, Value]]) -> Value:
    """Return the value that applies at `step`. `pairs` are (first step, value), ascending by step."""
    return [value for first, value in pairs if first <= step][-1]


def divisors(number: int) -> list[int]:
    small = [one for one in range(1, math.isqrt(number) + 1) if number % one == 0]
    return sorted({*small, *(number // one for one in small)})

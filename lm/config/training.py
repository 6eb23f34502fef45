"""One training run: its length, batches, data, devices, and what is looked at on the way."""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lm.config.evaluation import TasksConfig
from lm.config.optimizer import OptimizerConfig
from lm.config.remat import RematName, RematPolicy, Tensor, remat_policy
from lm.config.stages import NO_END, Stage, Stages
from lm.errors import UsageError
from lm.fields import Config, not_hashed, positive, within
from lm.run_paths import RunPaths
from lm.storage import Place, Url, place_of


@dataclass(frozen=True)
class MeshConfig(Config):
    """How devices share the work; those that the other axes leave over share the batch. The defaults suit one
    machine."""

    fsdp: int = 1
    """Devices over which each parameter and its optimizer state are cut (ZeRO-3, arXiv:1910.02054)."""
    tensor: int = 1
    """Devices over which heads, the MLP and the vocabulary are cut (Megatron, arXiv:1909.08053)."""
    context: int = 1
    """Devices over which each sequence is cut, and parameters and optimizer state too: for contexts whose activations
    one device cannot hold. Keys and values are gathered for attention (arXiv:2407.21783, section 3.3.2)."""
    zero1: bool = not_hashed(default=False)
    """Cut the optimizer state over the devices that share the batch, too (ZeRO-1, arXiv:1910.02054): gradients are
    reduced to parts, each device updates its part of the parameters, and the parts are gathered. The parameters stay
    as the other fields say."""

    def __post_init__(self):
        super().__post_init__()
        positive(self, "train.mesh", "fsdp", "tensor", "context")


@dataclass(frozen=True)
class SpikeConfig(Config):
    """Steps that are skipped: parameters and optimizer stay as they were. A loss or a gradient norm that is not finite
    always is one."""

    window: int = 0
    """Accepted steps over whose losses and gradient norms mean and standard deviation are taken; 0 applies any
    finite step. The bound holds once so many steps were accepted."""
    deviations: float = 6.0
    """Standard deviations above the mean beyond which a step is skipped (OLMo 2, arXiv:2501.00656)."""
    stop_after: int = not_hashed(default=10)
    """Steps skipped in a row after which training ends."""

    def __post_init__(self):
        super().__post_init__()
        positive(self, "train.spikes", "deviations", "stop_after")
        within(self, "train.spikes", 0, math.inf, "window")


@dataclass(frozen=True)
class StartConfig(Config):
    """Training that starts from a checkpoint of another run, and not from random parameters."""

    checkpoint: str = ""
    """Folder of the checkpoint, such as runs/a/checkpoints/800 or one in a bucket (s3://, gs://); empty for random
    parameters. It must stay there until this run is done: take one that its own run keeps, or a copy."""
    take: Literal["parameters", "everything"] = "parameters"
    """The parameters alone, to train from step 0 by any optimizer; or everything, to go on at the checkpoint's step.
    Floating types become those of this config."""

    def folder(self) -> Place:
        """The checkpoint's folder. Raises UsageError when there is none."""
        place = place_of(self.checkpoint)
        if isinstance(place, Url) and place.scheme not in ("s3", "gs"):
            raise UsageError(
                f"train.start.checkpoint = {self.checkpoint!r}: a checkpoint is read from a disk, s3:// or gs://. "
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
    """Shards of another run that take part in the training of this one."""

    tokens: str
    """Folder of the shards and their manifest.json, on a disk or in a bucket (s3://, gs://): the tokens/ of a run with
    the same tokenizer."""
    weight: float
    """Sequences from this folder, relative to the other weights of the mixture and to train.own_weight; 0 for a folder
    that only later stages of train.mixture_schedule read."""

    def __post_init__(self):
        super().__post_init__()
        if not self.tokens:
            raise UsageError("train.mixture has a source whose tokens is empty; name the tokens/ of another run.")
        if not 0 <= self.weight < math.inf:
            raise UsageError(
                f"train.mixture has {self.tokens} with a weight of {self.weight}; it must be 0 or more, and finite."
            )


@dataclass(frozen=True)
class MixtureStage(Config):
    """Weights of the mixture from a step on."""

    step: int
    """Number of steps before this stage."""
    weights: tuple[float, ...]
    """Weight of the run's own shards, then of each folder in train.mixture, in that order; 0 for folders that this
    stage does not read."""

    def __post_init__(self):
        super().__post_init__()
        if not all(0 <= weight < math.inf for weight in self.weights) or not sum(self.weights):
            raise UsageError(
                f"train.mixture_schedule has the weights {shown_numbers(self.weights)} from step {self.step} on; each "
                "must be 0 or more and finite, and one above 0."
            )


def shown_numbers(numbers: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{number:g}" for number in numbers) + ")"


XLA_OPTION = re.compile(r"xla_\w+=\S+")
MOST_STAGES = 100
"""Of a schedule: each batch shape is compiled before the first step."""


@dataclass(frozen=True)
class TrainConfig(Config):
    """One training run: how long, in what batches, and what is looked at on the way."""

    steps: int
    """Optimizer updates. A run that has made fewer, finished or not, trains on when more are asked for; from its last
    checkpoint on, the learning rate is that of a run of the new length."""
    batch_size: int
    """Sequences of model.context_length tokens in one step, over all devices; the mesh's data axis must divide it. With
    train.batch_schedule, that of the first steps."""
    seed: int
    """Seeds the initial weights and the order of the data."""
    optimizer: OptimizerConfig
    validate_every: int = not_hashed()
    """Steps between evaluations on held-out documents; the last step is evaluated too. 0 for none: then no validation
    split is needed."""
    validation_batches: int = not_hashed()
    """Batches of the validation shards read for one validation loss during training."""
    sample_every: int = not_hashed()
    """Steps between samples of text, printed and saved; the last step has one too. 0 for none."""
    sample_prompt: str = not_hashed()
    """Prompt of the samples taken during training; empty for the start of a document."""
    sample_tokens: int = not_hashed()
    """Length of those samples, in tokens, the prompt included."""
    checkpoint_every: int = not_hashed()
    """Steps between checkpoints; the last step is always saved. 0 saves that one alone."""
    checkpoints_kept: int = not_hashed()
    """The newest checkpoints that are kept."""
    log_every: int = not_hashed()
    """Steps between lines in metrics.jsonl; the last step has one too. 0 logs that one alone."""
    mesh: MeshConfig = not_hashed()  # noqa: RUF009
    """Devices and what each of them holds."""
    loss_chunks: int = not_hashed()
    """Parts of the sequence whose logits exist one after the other (a divisor of model.context_length): with a large
    vocabulary, logits are what a step needs most memory for. Sums are taken in another order, as on another mesh."""
    loader_threads: int = not_hashed()
    """Threads that read and decode records."""
    layout: str = not_hashed(default="")
    """The row of configs/layouts.py that mesh, micro_batches, remat, loss_chunks and model.scan_layers are of, where
    they are of one; on the command line it sets them, and its hardware alone is enough: v6e:8x8."""
    micro_batches: int = not_hashed(default=1)
    """Parts of the batch that are computed one after the other, their gradients summed in float32 (gradient
    accumulation); a divisor of batch_size: the memory of one part is enough. The devices that share the batch must
    divide a part. With train.batch_schedule this is the number of parts of the largest batch; smaller batches have
    fewer parts, none of them larger."""
    remat: RematName = not_hashed(default="none")  # noqa: RUF009
    """What of a block is computed again in the backward pass to save memory (arXiv:1604.06174): from nothing to the
    whole block, by the policies in lm/config/remat.py."""
    remat_keep: tuple[Tensor, ...] = not_hashed(default=())
    """Tensors of a block that are kept in the device's memory, whatever the policy says."""
    remat_offload: tuple[Tensor, ...] = not_hashed(default=())
    """Tensors of a block that are sent to the host's memory and back, whatever the policy says."""
    z_loss: float = 0.0
    """Weight of logsumexp(logits)**2 beside the loss (PaLM, arXiv:2204.02311: 1e-4); 0 leaves it out. The losses that
    are logged are without it."""
    dropout: float = 0.0
    """Share of values set to 0 after the embedding, each attention and each MLP (arXiv:1207.0580)."""
    mixture: tuple[MixtureSource, ...] = ()
    """Folders of shards to train on beside the run's own, each with its weight: FOLDER WEIGHT on the command line.
    Validation is on the run's own alone."""
    own_weight: float = 1.0
    """Sequences from the run's own shards, relative to the weights in train.mixture; 0 leaves them out of training."""
    xla_options: tuple[str, ...] = not_hashed(default=())
    """Options that XLA compiles the training step with, as name=value: xla_gpu_… on NVIDIA's GPUs, all others on TPUs.
    Each is left out on other devices. XLA_FLAGS and LIBTPU_INIT_ARGS hold beside them."""
    shuffle_block: int = 1
    """Number of consecutive windows (sequences of context_length tokens) that are read together and shuffled as a unit,
    then among themselves; 1 shuffles every window separately. In a bucket a block costs one request, so blocks of 1 MB
    or more are cheap. The batches of this many steps or more come from the same blocks: 64, or one per sequence of the
    batch, whichever is more."""
    batch_schedule: tuple[tuple[int, int], ...] = ()
    """Pairs (step, batch size): after that many steps, a batch has this many sequences instead of train.batch_size. The
    learning rate still counts steps. STEP SIZE STEP SIZE ... on the command line."""
    context_schedule: tuple[tuple[int, int], ...] = ()
    """Pairs (step, context length): after that many steps, each sequence of model.context_length tokens is cut into
    equal sequences of this length, which must divide it. Batches get more and shorter sequences with the same tokens.
    STEP LENGTH STEP LENGTH ... on the command line; step 0 is the start."""
    mixture_schedule: tuple[MixtureStage, ...] = ()
    """Weights that replace train.own_weight and those in train.mixture after a number of steps. Each folder continues
    where the previous stage stopped. STEP:OWN_WEIGHT,WEIGHT,... on the command line, one weight for each folder."""
    wandb_project: str = not_hashed(default="")
    """Project of Weights & Biases that also gets the metrics (needs `make add PACKAGE=wandb`; WANDB_MODE=offline keeps
    them in the run folder); empty for none."""
    profile_step: int = not_hashed(default=0)
    """First step that is profiled, into profile/ of the run folder, for XProf and Perfetto; 0 for none."""
    profile_steps: int = not_hashed(default=3)
    """Steps in that profile."""
    checkpoints_kept_every: int = not_hashed(default=0)
    """Of every so many steps one checkpoint is kept for good: the first at or after each multiple; 0 for none."""
    checkpoints_kept_best: int = not_hashed(default=0)
    """As many checkpoints with the lowest validation losses are kept too, of those whose step was validated."""
    snapshot_steps: tuple[int, ...] = not_hashed(default=())
    """Steps whose parameters alone are kept for good in snapshots/, to see later how the model learned; 0 is the
    initial ones. Steps beyond train.steps are passed over."""
    spikes: SpikeConfig = SpikeConfig()
    start: StartConfig = StartConfig()
    verify_shards: bool = not_hashed(default=True)
    """Compare the SHA-256 of all shards on disk with the manifest's. The first step waits for the result for up to a
    minute; after that, training ends at the next checkpoint if a shard is damaged. A restart reads only files that have
    changed. Without it, and for shards in a bucket, damage is found when a damaged record is read."""
    evaluators: tuple[str, ...] = not_hashed(default=("validation",))
    """What is evaluated every validate_every steps: names of the table in lm/evaluation/evaluators.py, or classes of
    your own as my_package.my_module.MyEvaluator."""
    tasks: TasksConfig = not_hashed(default=TasksConfig())  # noqa: RUF009
    """What the tasks among them read."""
    checkpoint_every_seconds: float = not_hashed(default=0.0)
    """Save a checkpoint when this many seconds have passed since the last save began, whatever checkpoint_every says; 0
    for never."""
    join_timeout: float = not_hashed(default=300.0)
    """Seconds that several processes wait for one another at the start, after which those that have not come are
    named (docs/long_runs.md)."""
    hang_seconds: float = not_hashed(default=120.0)
    """Seconds without a step, if they are also twenty times the usual, after which the stacks of all threads are
    written to hangs/ of the run folder; 0 for never."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.own_weight < math.inf:
            raise UsageError(f"train.own_weight is {self.own_weight}; it must be 0 or more, and finite.")
        if not self.own_weight and not sum(source.weight for source in self.mixture):
            raise UsageError(
                "train.own_weight is 0 and train.mixture has no folder with a weight above 0, so there is nothing to "
                "train on. Give the run's own shards a weight, or name others."
            )
        for name in ("steps", "batch_size", "validation_batches", "sample_tokens", "checkpoints_kept", "loss_chunks",
                     "loader_threads", "micro_batches", "profile_steps", "shuffle_block"):  # fmt: skip
            if getattr(self, name) < 1:
                raise UsageError(f"train.{name} is {getattr(self, name)}; it must be at least 1.")
        self.check_hooks()
        self.check_remat()
        self.check_xla_options()
        within(self, "train", 0, 1e6, "hang_seconds", "checkpoint_every_seconds")
        within(self, "train", 1, 1e6, "join_timeout")
        within(self, "train", 1, 2**31 - 1, "steps")  # JAX counts them in 32 bits
        within(self, "train", 1, 1024, "loader_threads")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"train.seed is {self.seed}; it must be at least 0 and below 2**32.")
        self.check_schedules()
        if self.largest_batch % self.micro_batches:
            name = "the largest batch of train.batch_schedule" if self.batch_schedule else "train.batch_size"
            raise UsageError(
                f"train.micro_batches = {self.micro_batches} does not divide {name} = {self.largest_batch}. "
                "Choose one of its divisors."
            )
        if not 0 <= self.dropout < 1 or not 0 <= self.z_loss < math.inf:
            raise UsageError(
                f"train.dropout = {self.dropout} must be at least 0 and below 1, and train.z_loss = {self.z_loss} 0 or "
                "more."
            )
        if self.optimizer.warmup_steps + self.optimizer.decay_steps > self.steps:
            raise UsageError(
                f"train.optimizer: warmup_steps = {self.optimizer.warmup_steps} and decay_steps = "
                f"{self.optimizer.decay_steps} are more than train.steps = {self.steps}. Shorten them, or train longer."
            )
        profiled = self.profile_step + self.profile_steps - 1
        if self.profile_step < 0 or (self.profile_step and profiled > self.steps):
            raise UsageError(
                f"train.profile_step = {self.profile_step} and profile_steps = {self.profile_steps} do not lie within "
                f"train.steps = {self.steps}. Begin at 1 or later and end at {self.steps} or before, or set "
                "profile_step = 0 for no profile."
            )
        if self.optimizer.warmup_steps >= self.steps:
            raise UsageError(
                f"train.optimizer.warmup_steps = {self.optimizer.warmup_steps} leaves nothing of train.steps = "
                f"{self.steps}. Warm up for fewer steps, or train longer."
            )

    @property
    def remat_policy(self) -> RematPolicy | None:
        """What is kept of a block for the backward pass; None for all that it needs."""
        return remat_policy(self.remat, self.remat_keep, self.remat_offload)

    @property
    def largest_batch(self) -> int:
        """The largest batch of any stage, in sequences of model.context_length tokens."""
        return max([self.batch_size, *(size for _, size in self.batch_schedule)])

    @property
    def reads_own_shards(self) -> bool:
        """Whether any stage reads the run's own shards."""
        return self.own_weight > 0 or any(stage.weights[0] > 0 for stage in self.mixture_schedule)

    def stages(self, context_length: int) -> Stages:
        """The stages of this run, with a model of that context. Raises UsageError for a context length of
        train.context_schedule that does not divide it."""
        for _, length in self.context_schedule:
            if context_length % length:
                raise UsageError(
                    f"train.context_schedule has {length} tokens, which does not divide model.context_length = "
                    f"{context_length}. Give divisors: sequences are cut into equal parts."
                )
        weights: list[tuple[int, tuple[float, ...]]] = [(stage.step, stage.weights) for stage in self.mixture_schedule]
        if weights:
            weights.insert(0, (0, (self.own_weight, *(source.weight for source in self.mixture))))
        own = 0 if self.reads_own_shards else 1  # lm.data.mixture.mixture_of leaves them out, too
        steps = {0, *(step for step, _ in (*self.batch_schedule, *self.context_schedule, *weights))}
        found, before = [], 0
        for first, end in itertools.pairwise([*sorted(steps), NO_END]):
            size = value_at(first, ((0, self.batch_size), *self.batch_schedule))
            length = value_at(first, ((0, context_length), *self.context_schedule))
            # Devices that divide this batch and the parts of the largest one divide the parts of this one, too.
            part = self.largest_batch // self.micro_batches
            micro_batches = min(count for count in divisors(size // math.gcd(size, part)) if size <= count * part)
            now = value_at(first, weights)[own:] if weights else ()
            found.append(Stage(first, end, before, size, context_length // length, length, micro_batches, now))
            before += (end - first) * size
        return Stages(found)

    def of_stage(self, stage: Stage) -> "TrainConfig":
        """Return the config of an unscheduled run with the batches of `stage`, without its mixture."""
        return replace(
            self, batch_size=stage.windows, micro_batches=stage.micro_batches, batch_schedule=(), context_schedule=(),
            mixture_schedule=(), mixture=(), own_weight=1.0,
        )  # fmt: skip

    def check_schedules(self) -> None:
        """Raises UsageError for schedules that cannot be, whatever the model."""
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
                    "gives it another. Leave it out, or give it a weight above 0."
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
                        f"train.{name} has step {step}; steps must rise from {least} and be below 2**31. Before it "
                        f"there is {before if before >= least else 'none'}."
                    )
                if not 1 <= value < 2**31:
                    raise UsageError(f"train.{name} has {value} from step {step} on; it must be from 1 to 2**31 - 1.")

    def check_xla_options(self) -> None:
        """Raises UsageError for what cannot be an option."""
        for option in self.xla_options:
            if not XLA_OPTION.fullmatch(option):
                raise UsageError(
                    f"train.xla_options has {option!r}. Give options of XLA as name=value, such as "
                    "xla_gpu_enable_latency_hiding_scheduler=true."
                )

    def check_remat(self) -> None:
        """Raises UsageError for tensors that cannot be where they are asked for."""
        both = sorted({*self.remat_keep} & {*self.remat_offload})
        if both:
            raise UsageError(
                f"train.remat_keep and train.remat_offload both have {', '.join(both)}. A tensor is kept on the device "
                "or sent to the host: take it out of one of them."
            )
        if self.remat == "none" and (self.remat_keep or self.remat_offload):
            raise UsageError(
                "train.remat is none, which keeps everything on the device, but train.remat_keep is "
                f"[{' '.join(self.remat_keep)}] and train.remat_offload is [{' '.join(self.remat_offload)}]. Choose "
                "a policy that computes the rest again, such as train.remat = full."
            )

    def check_hooks(self) -> None:
        """Raises UsageError for what is asked of hooks and cannot be."""
        for name in ("validate_every", "sample_every", "checkpoint_every", "log_every"):
            if getattr(self, name) < 0:
                raise UsageError(f"train.{name} is {getattr(self, name)}; it must be at least 0, which is never.")
        within(self, "train", 0, math.inf, "checkpoints_kept_every", "checkpoints_kept_best", "snapshot_steps")
        if self.checkpoints_kept_best and not self.validate_every:
            raise UsageError(
                f"train.checkpoints_kept_best = {self.checkpoints_kept_best} goes by validation losses, but "
                "train.validate_every = 0. Validate, or keep none for its loss."
            )
        if self.checkpoints_kept_best and not {"validation", "bits_per_byte"} & {*self.evaluators}:
            raise UsageError(
                f"train.checkpoints_kept_best = {self.checkpoints_kept_best} goes by validation losses, but "
                f"train.evaluators is {' '.join(self.evaluators)}. Name validation too, or keep none for its loss."
            )
        if self.validate_every and not self.evaluators:
            raise UsageError(
                f"train.validate_every = {self.validate_every}, but train.evaluators is empty. Name one, such as "
                "validation, or set train.validate_every = 0."
            )


def value_at[Value](step: int, pairs: Sequence[tuple[int, Value]]) -> Value:
    """The value of the last of `pairs` (step, value), in rising order, whose step is not after `step`."""
    return [value for first, value in pairs if first <= step][-1]


def divisors(number: int) -> list[int]:
    small = [one for one in range(1, math.isqrt(number) + 1) if number % one == 0]
    return sorted({*small, *(number // one for one in small)})

"""Every knob of lm but those of the model (lm/model/config.py), as frozen dataclasses. No jax here: reading a config
must cost nothing.

Fields marked `incidental` decide how fast a result is made or how often it is looked at, not what it is; they are left
out of what identifies it.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lm.errors import UsageError
from lm.fields import Config, incidental, positive, within

END_OF_TEXT = "<|endoftext|>"
"""The special token that heads every document."""


@dataclass(frozen=True)
class TokenizerConfig(Config):
    """The vocabulary: trained on the run's documents, or loaded."""

    vocabulary_size: int
    """Symbols in all, special tokens included. A loaded vocabulary must have just as many."""
    split_pattern: str
    """How text is cut before merging: gpt2, cl100k, o200k, or a regular expression of your own that leaves nothing
    out; merges never cross a cut. Of bpe alone."""
    train_characters: int
    """Upper bound on the characters of text to train on: a sample of the documents, where they have more (at most 700
    million)."""
    algorithm: Literal["bpe", "sentencepiece_bpe", "sentencepiece_unigram", "characters"] = "bpe"
    """Byte-level BPE, sentencepiece's BPE or unigram model with byte fallback, or one symbol a character."""
    load: str = ""
    """A published vocabulary in place of a trained one: gpt2, cl100k, o200k, llama3, or the path of a .tiktoken file, a
    tokenizer.json, a sentencepiece .model, or a tokenizer's folder."""
    special_tokens: tuple[str, ...] = ("<|endoftext|>",)
    """Names of symbols that stand for no text, <|endoftext|> among them. Of bpe alone."""

    def __post_init__(self):
        super().__post_init__()
        names = self.special_tokens
        if END_OF_TEXT not in names or len(set(names)) < len(names) or not all(names):
            raise UsageError(
                f"tokenizer.special_tokens is {', '.join(map(repr, names)) or 'empty'}; give {END_OF_TEXT!r}, which "
                "heads every document, and each other name once."
            )
        if odd := [name for name in names if not name.isprintable()]:
            raise UsageError(f"tokenizer.special_tokens has {odd[0]!r}; names must be of printable characters.")
        if names != (END_OF_TEXT,) and (self.load or self.algorithm != "bpe"):
            what = f"load = {self.load!r}" if self.load else f"algorithm = {self.algorithm}"
            raise UsageError(
                f"tokenizer.special_tokens is {', '.join(names)}, but tokenizer.{what} has its own. Leave one out."
            )
        if self.load and self.algorithm != "bpe":
            raise UsageError(
                f"tokenizer.load = {self.load!r} is trained already, but tokenizer.algorithm is {self.algorithm}. "
                "Leave one out."
            )
        least = 256 + len(names)
        if self.algorithm == "bpe" and not self.load and self.vocabulary_size < least:
            raise UsageError(
                f"tokenizer.vocabulary_size is {self.vocabulary_size}, but 256 bytes and {len(names)} special tokens "
                f"alone need {least}. Set it to {least} or more."
            )
        positive(self, "tokenizer", "vocabulary_size", "train_characters")
        if self.train_characters > 700_000_000:  # it counts in 32 bits; a pair occurs at most 3 times a character
            raise UsageError(
                f"tokenizer.train_characters is {self.train_characters:,}, but the trainer can count pairs in at most "
                "700,000,000 characters. Lower it: a sample of the documents makes as good a vocabulary."
            )


@dataclass(frozen=True)
class MuonConfig(Config):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for the linear maps within blocks."""

    learning_rate: float
    """Peak learning rate of these; it rises and falls as the other does. An update's singular values lie about 1, times
    sqrt(out / in) where a map is wider out than in."""
    momentum: float
    """Decay of the momentum, which is Nesterov's."""
    newton_schulz_steps: int
    """Iterations that make an update orthogonal; the published Muon has 5."""

    def __post_init__(self):
        super().__post_init__()
        positive(self, "train.optimizer.muon", "learning_rate", "newton_schulz_steps")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"train.optimizer.muon.momentum is {self.momentum}; it must be at least 0 and below 1.")


@dataclass(frozen=True)
class OptimizerConfig(Config):
    """How gradients become updates; weight decay is decoupled and on matrices only."""

    learning_rate: float
    """Peak learning rate, reached at the end of the warm-up."""
    final_learning_rate: float
    """Learning rate at the last step; at most learning_rate. Muon's falls by the same factor."""
    warmup_steps: int
    """Steps of linear warm-up from zero."""
    beta1: float
    """Decay of the first moment."""
    beta2: float
    """Decay of the second moment; Adafactor has a schedule of its own."""
    epsilon: float
    """Added to the root of AdamW's second moment."""
    weight_decay: float
    """Decoupled weight decay of matrices, times the learning rate."""
    clip_norm: float
    """Gradients with a larger global norm are scaled down to it."""
    rule: Literal["adamw", "adafactor", "lion"] = "adamw"
    """AdamW (arXiv:1711.05101), Adafactor (arXiv:1804.04235), whose second moments take next to no memory, or Lion
    (arXiv:2302.06675), which keeps one moment and wants a learning rate some 5 times smaller."""
    muon: MuonConfig | None = None
    """Muon for the linear maps within blocks, beside the rule for all else; None for the rule alone."""
    schedule: Literal["cosine", "linear", "warmup_stable_decay"] = "cosine"
    """How the rate falls after the warm-up: as a cosine (arXiv:1608.03983), in a line, or not at all until the last
    decay_steps steps, and then in a line (arXiv:2404.06395)."""
    decay_steps: int = 0
    """Steps of the decay at the end; of warmup_stable_decay alone."""

    def __post_init__(self):
        super().__post_init__()
        positive(self, "train.optimizer", "learning_rate", "epsilon", "clip_norm")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"train.optimizer.{name} is {getattr(self, name)}; it must be at least 0 and below 1.")
        for name in ("final_learning_rate", "warmup_steps", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"train.optimizer.{name} is {getattr(self, name)}; it must be 0 or more, and finite.")
        if self.final_learning_rate > self.learning_rate:
            raise UsageError(
                f"train.optimizer.final_learning_rate = {self.final_learning_rate} is above learning_rate = "
                f"{self.learning_rate}, so the rate would rise to the end. Lower the one, or raise the other."
            )
        if (self.decay_steps > 0) != (self.schedule == "warmup_stable_decay") or self.decay_steps < 0:
            raise UsageError(
                f"train.optimizer.decay_steps = {self.decay_steps} with schedule = {self.schedule}: it is above 0 with "
                "warmup_stable_decay, and 0 with any other."
            )


@dataclass(frozen=True)
class MeshConfig(Config):
    """How devices share the work; those that the other axes leave over share the batch. The defaults suit one
    machine."""

    fsdp: int = 1
    """Devices over which each parameter and its optimizer state are cut (ZeRO-3, arXiv:1910.02054)."""
    tensor: int = 1
    """Devices over which heads, the MLP and the vocabulary are cut (Megatron, arXiv:1909.08053)."""
    context: int = 1
    """Devices over which each sequence is cut: for contexts whose activations one device cannot hold. Keys and values
    are gathered for attention (arXiv:2407.21783, section 3.3.2)."""

    def __post_init__(self):
        super().__post_init__()
        positive(self, "train.mesh", "fsdp", "tensor", "context")


@dataclass(frozen=True)
class SpikeConfig(Config):
    """Steps that are left out: parameters and optimizer stay as they were. A loss or a gradient norm that is not finite
    always is one."""

    window: int = 0
    """Accepted steps over whose losses and gradient norms mean and standard deviation are taken; 0 takes any finite
    step. The bound holds once so many steps were accepted."""
    deviations: float = 6.0
    """Standard deviations above the mean beyond which a step is left out (OLMo 2, arXiv:2501.00656)."""
    stop_after: int = incidental(default=10)
    """Steps left out in a row after which training ends."""

    def __post_init__(self):
        super().__post_init__()
        positive(self, "train.spikes", "deviations", "stop_after")
        within(self, "train.spikes", 0, math.inf, "window")


@dataclass(frozen=True)
class StartConfig(Config):
    """Training that starts from a checkpoint of another run, and not from random parameters."""

    checkpoint: str = ""
    """Folder of the checkpoint, such as runs/a/checkpoints/800; empty for random parameters. It must stay there until
    this run is done: take one that its own run keeps, or a copy."""
    take: Literal["parameters", "everything"] = "parameters"
    """The parameters alone, to train from step 0 by any optimizer; or everything, to go on at the checkpoint's step.
    Floating types become those of this config."""

    def folder(self) -> Path:
        """The checkpoint's folder. Raises UsageError when there is none."""
        folder = Path(self.checkpoint).expanduser().absolute()
        if not (folder.is_dir() and folder.name.isdecimal()):
            inside = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
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
    """Folder of the shards and their manifest.json: the tokens/ of a run with the same tokenizer."""
    weight: float
    """Sequences from this folder, relative to the other weights of the mixture and to train.own_weight."""

    def __post_init__(self):
        super().__post_init__()
        if not self.tokens:
            raise UsageError("train.mixture has a source whose tokens is empty; name the tokens/ of another run.")
        if not 0 < self.weight < math.inf:
            raise UsageError(
                f"train.mixture has {self.tokens} with a weight of {self.weight}; it must be above 0 and finite. "
                "Leave out a source that is to give nothing."
            )


@dataclass(frozen=True)
class TrainConfig(Config):
    """One training run: how long, in what batches, and what is looked at on the way."""

    steps: int
    """Optimizer updates. A run that has made fewer, finished or not, trains on when more are asked for; from its last
    checkpoint on, the learning rate is that of a run of the new length."""
    batch_size: int
    """Sequences of model.context_length tokens in one step, over all devices; the mesh's data axis must divide it."""
    seed: int
    """Seeds the initial weights and the order of the data."""
    optimizer: OptimizerConfig
    validate_every: int = incidental()
    """Steps between validation losses."""
    validation_batches: int = incidental()
    """Batches of the validation shards read for one validation loss during training."""
    sample_every: int = incidental()
    """Steps between samples of text, printed and saved."""
    sample_prompt: str = incidental()
    """Prompt of the samples taken during training; empty for the start of a document."""
    sample_tokens: int = incidental()
    """Length of those samples, in tokens, the prompt included."""
    checkpoint_every: int = incidental()
    """Steps between checkpoints; the last step is always saved."""
    checkpoints_kept: int = incidental()
    """The newest checkpoints that are kept."""
    log_every: int = incidental()
    """Steps between lines in metrics.jsonl."""
    mesh: MeshConfig = incidental()  # noqa: RUF009
    """Devices and what each of them holds."""
    loss_parts: int = incidental()
    """Parts of the sequence whose logits exist one after the other (a divisor of model.context_length): with a large
    vocabulary, logits are what a step needs most memory for. Sums are taken in another order, as on another mesh."""
    loader_threads: int = incidental()
    """Threads that read and decode records."""
    micro_batches: int = incidental(default=1)
    """Parts of the batch that are computed one after the other, their gradients summed in float32 (gradient
    accumulation); a divisor of batch_size: the memory of one part is enough. The devices that share the batch must
    divide a part."""
    remat: Literal["none", "products", "block"] = incidental(default="none")
    """What of a block is computed again in the backward pass to save memory: nothing, all but the results of linear
    maps, or the whole block (arXiv:1604.06174)."""
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
    wandb_project: str = incidental(default="")
    """Project of Weights & Biases to which metrics go too (needs `pip install wandb`; WANDB_MODE=offline keeps them in
    the run folder); empty for none."""
    profile_step: int = incidental(default=0)
    """First step that is profiled, into profile/ of the run folder, for XProf and Perfetto; 0 for none."""
    profile_steps: int = incidental(default=3)
    """Steps in that profile."""
    checkpoints_kept_every: int = incidental(default=0)
    """Of every so many steps one checkpoint is kept for good: the first at or behind each multiple; 0 for none."""
    checkpoints_kept_best: int = incidental(default=0)
    """As many checkpoints with the lowest validation losses are kept too, of those whose step was validated."""
    spikes: SpikeConfig = SpikeConfig()
    start: StartConfig = StartConfig()
    verify_shards: bool = incidental(default=True)
    """Read all shards through before the first step, and compare their SHA-256 with the manifest's. Without, damage is
    found when a record is read that has it."""
    hang_seconds: float = incidental(default=120.0)
    """Seconds without a step, if they are also twenty times the usual, after which the stacks of all threads are
    written to hangs/ of the run folder; 0 for never."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.own_weight < math.inf:
            raise UsageError(f"train.own_weight is {self.own_weight}; it must be 0 or more, and finite.")
        if not self.own_weight and not self.mixture:
            raise UsageError(
                "train.own_weight is 0 and train.mixture is empty, so there is nothing to train on. "
                "Give the run's own shards a weight, or name others."
            )
        for name in ("steps", "batch_size", "validate_every", "validation_batches", "sample_every", "sample_tokens",
                     "checkpoint_every", "checkpoints_kept", "log_every", "loss_parts", "loader_threads",
                     "micro_batches", "profile_steps"):  # fmt: skip
            if getattr(self, name) < 1:
                raise UsageError(f"train.{name} is {getattr(self, name)}; it must be at least 1.")
        within(self, "train", 0, math.inf, "checkpoints_kept_every", "checkpoints_kept_best")
        within(self, "train", 0, 1e6, "hang_seconds")
        within(self, "train", 1, 2**31 - 1, "steps")  # JAX counts them in 32 bits
        within(self, "train", 1, 1024, "loader_threads")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"train.seed is {self.seed}; it must be at least 0 and below 2**32.")
        if self.batch_size % self.micro_batches:
            raise UsageError(
                f"train.micro_batches = {self.micro_batches} does not divide train.batch_size = {self.batch_size}. "
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


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """Bits per byte of the held-out documents, beside general-purpose compressors."""

    stride: int
    """New tokens scored per window; the rest of the window is context that is read again (at most
    model.context_length)."""
    batch_size: int = incidental()
    """Windows scored at once."""

    def __post_init__(self):
        super().__post_init__()
        if self.stride < 1 or self.batch_size < 1:
            raise UsageError(
                f"evaluate.stride = {self.stride} and evaluate.batch_size = {self.batch_size} must be at least 1."
            )


@dataclass(frozen=True)
class SampleConfig(Config):
    """Text from the trained model."""

    prompts: tuple[str, ...]
    """Each is continued once at each temperature; an empty prompt starts a new document."""
    temperatures: tuple[float, ...]
    """0 takes the likeliest token; 1 samples from the model's own distribution."""
    tokens: int
    """Length in tokens, the prompt included (at most model.context_length)."""
    seed: int
    """Seeds the sampling."""

    def __post_init__(self):
        super().__post_init__()
        if not all(0 <= temperature < math.inf for temperature in self.temperatures):
            raise UsageError(f"sample.temperatures = {self.temperatures}; each must be 0 or more.")
        if not self.prompts or not self.temperatures:
            raise UsageError(
                f"sample.prompts = {self.prompts} and sample.temperatures = {self.temperatures}: "
                "give at least one of each."
            )
        if self.tokens < 2 or not 0 <= self.seed < 2**32:
            raise UsageError(
                f"sample.tokens = {self.tokens} must be at least 2, and sample.seed = {self.seed} from 0 to "
                "below 2**32."
            )

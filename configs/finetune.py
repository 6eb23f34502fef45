"""Finetune any run on your own conversations, from 20 to a million:

    python -m launch.finetune runs/smollm2 configs/finetune.py --chat.conversations talks.jsonl --workdir runs/mine

`fit` chooses context, batch, learning rate and steps by the conversations, the model and the memory, prints each with
its reason, and keeps those that you set as options. The run remembers what they were chosen for, so that the same
command resumes it with the same values. Training ends when the loss of the held-out conversations no longer falls; the
result is the step with the lowest one.
"""

import dataclasses
import math
from collections.abc import Collection

from configs.experiment import Experiment
from configs.own_text import Choices, power_of_2
from data_prep.sources.sizes import ConversationSizes
from lm.config import ChatConfig, OptimizerConfig, SampleConfig
from lm.config.model import least_parameters
from lm.config.training import divisors
from lm.model.cost import BYTES, kept_channels

ROOM, LEAST_CONTEXT = 4, 512
"""A context holds ROOM of the longest conversations, so that one can chat for longer, and at least LEAST_CONTEXT
tokens if the base can."""
STEPS_OF_EPOCH = 8
STEP_TOKENS = 16_384
PART_TOKENS = 2_048
"""Maximum tokens of a micro-batch: it determines the memory."""
EPOCHS, READ = 60, 30_000
"""Maximum epochs, and conversations to read in all if there are more than READ / EPOCHS; at least 3 epochs."""
PATIENCE = 3
"""Epochs to wait for a lower loss."""
RATE, MOST_RATE = 4e-4, 2e-3
"""Learning rate for 100 million parameters, and at most; it falls with the square root of their number."""
MOST_AVERAGED = 100
"""Parameters are averaged over about an epoch, but at most this many steps, since single steps on small batches are
noisy: after 200 conversations SmolLM2 gives 96 % of the trained answers with the average and 81 % without
(docs/benchmarks.md). There is no average if it would leave less than half of the machine's memory free."""
HELD_OUT = 5, 1_000
"""Fewest and most conversations to hold out, unless that is more than half, or 10 % are fewer."""
LARGE_VOCABULARY = 8_192


def get_config(base: Experiment) -> Experiment:
    """Return the experiment with the values that do not depend on the conversations. `fit` replaces the other values,
    which let each option be given alone."""
    optimizer = OptimizerConfig(
        learning_rate=RATE, final_learning_rate=0.0, warmup_steps=0, beta1=0.9, beta2=0.95, epsilon=1e-8,
        weight_decay=0.0, clip_norm=1.0, schedule="linear",
    )  # fmt: skip
    train = dataclasses.replace(
        base.train, steps=10_000, batch_size=8, optimizer=optimizer, ema_decay=0.0, validate_every=1, patience=1,
        evaluators=("validation",), sample_every=0, sample_prompt="", sample_tokens=16, checkpoint_every=0,
        checkpoint_every_seconds=600.0, checkpoints_kept=1, snapshot_steps=(), micro_batches=1, loss_chunks=1,
        skip_untrained=True, batch_schedule=(), context_schedule=(), mixture=(), own_weight=1.0, mixture_schedule=(),
    )  # fmt: skip
    return dataclasses.replace(
        base,
        train=train,
        chat=ChatConfig(validation_fraction=0.1),
        shards=dataclasses.replace(base.shards, record_length=2**20, packing="concatenate"),
        evaluate=dataclasses.replace(base.evaluate, stride=1, batch_size=1),
        sample=SampleConfig(prompts=("",), temperatures=(0.0,), tokens=16, seed=base.sample.seed),
    )


def fit(experiment: Experiment, sizes: ConversationSizes, given: Collection[str]) -> tuple[Experiment, list[str]]:
    """Return (experiment with values that suit `sizes` and the model of the base, [line with the reason for each]).

    Options that the user has `given`, such as "train.steps", keep their values. Raises UsageError if the given options
    do not fit together.
    """
    choices = Choices(experiment, given)
    choose, model, train = choices.choose, experiment.model, experiment.train
    share = min(max(0.1, HELD_OUT[0] / sizes.conversations), 0.5)
    share = choose(
        "chat.validation_fraction",
        round(max(min(share, HELD_OUT[1] / sizes.conversations), 0.001), 4),
        f"about {math.ceil(share * sizes.conversations):,} of {sizes.conversations:,} conversations",
    )  # fmt: skip

    rephrased = sizes.rephrased >= max(HELD_OUT[0], share * sizes.conversations / 2)
    choose(
        "chat.held_out", "rephrased" if rephrased else "any",
        f"{sizes.rephrased:,} conversations have the answers of other questions, which is "
        + ("enough to hold out only such ones" if rephrased else "too few to hold out only such ones"),
    )  # fmt: skip

    # Learned positions are parameters: another number of them would be another model.
    wanted = 2 ** math.ceil(math.log2(max(ROOM * sizes.longest, LEAST_CONTEXT)))
    context = choose(
        "model.context_length",
        model.context_length if model.position == "learned" else min(wanted, model.context_length),
        f"tokens; the longest conversation has {sizes.longest:,}, the base reads up to {model.context_length:,}",
    )  # fmt: skip
    model = dataclasses.replace(model, context_length=context)

    sequences = max(math.ceil((1 - share) * sizes.tokens / context), 1)
    most = max(STEP_TOKENS // context, 1)
    batch = choose(
        "train.batch_size", min(power_of_2(sequences / STEPS_OF_EPOCH), power_of_2(most)),
        f"sequences of {context:,} tokens; all conversations together fill about {sequences:,}",
    )  # fmt: skip
    epoch = math.ceil(sequences / batch)
    epochs = max(min(EPOCHS, READ // sizes.conversations), 3)
    steps = choose("train.steps", epochs * epoch, f"at most {epochs} epochs of {epoch:,} steps")
    parts = max(round(epoch / 200), 1)
    every = choose("train.validate_every", math.ceil(epoch / parts))
    choose(
        "train.patience", PATIENCE * parts if every else 0,
        f"training ends after {PATIENCE} epochs without a lower loss of the held-out conversations",
    )  # fmt: skip
    choose("train.validation_batches", max(64 // batch, math.ceil(sequences * share / batch)))
    choose("train.log_every", math.ceil(epoch / 4))

    parameters = least_parameters(model)
    rate = min(RATE * math.sqrt(1e8 / parameters), MOST_RATE)
    adapters = train.lora.rank > 0
    rate = choose(
        "train.optimizer.learning_rate", float(f"{10 * rate if adapters else rate:.1e}"),
        f"for {parameters / 1e6:,.3g} million parameters" + (", ten times as much with adapters" if adapters else ""),
    )  # fmt: skip
    choose("train.optimizer.warmup_steps", min(math.ceil(epoch / 2), steps // 4))

    copy = parameters * BYTES[model.parameter_dtype]
    averaged = min(max(epoch, 2), MOST_AVERAGED)
    # Beside parameters, two moments and gradients, the average is the fifth copy.
    averages = model.parameter_dtype == "float32" and not adapters and (not sizes.memory or 10 * copy < sizes.memory)
    decay = choose(
        "train.ema_decay", round(1 - 1 / averaged, 3) if averages else 0.0,
        f"the result is a moving average of the parameters over about {averaged} steps" if averages else "",
    )  # fmt: skip

    # Half of the memory that these copies leave is for activations.
    state = copy * (1 if adapters else 4 + (decay > 0))
    of_token = model.layers * BYTES[model.compute_dtype] * kept_channels(model, None)
    fitting = (sizes.memory - state) // 2 // of_token if sizes.memory else PART_TOKENS
    if "train.layout" not in given:
        if fitting < context:
            choose("train.remat", "full", f"saves memory: {sizes.memory / 1e9:.1f} GB are few here")
            fitting = PART_TOKENS
        rows = max(min(fitting, PART_TOKENS) // context, 1)
        choose("train.micro_batches", min(n for n in divisors(batch) if batch // n <= rows))
        large = model.vocab_size > LARGE_VOCABULARY
        choose("train.loss_chunks", math.gcd(16, context) if large else 1)
        choose("train.skip_untrained", large)
    choose("evaluate.stride", max(context // 2, 1))
    choose("sample.tokens", min(160, context))
    choose("train.sample_tokens", min(96, context))
    return choices.fitted()

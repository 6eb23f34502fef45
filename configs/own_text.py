"""Train a small model on your texts: notes, books, mail, in .txt, .md, JSON lines or Parquet, from 30 kB to 1 GB.

    python -m launch.pretrain configs/own_text.py --pages.tables notes/

`get_config` has the values that are the same for all texts. `fit` chooses the others by the amount of text, prints each
with its reason, and keeps those that you set as options. On two cores expect about a minute for 30 kB, three minutes
for 1 MB, and about ten minutes of training for 10 MB or more (docs/own_text.md).

The run remembers the amount of text that its values were fitted to, so texts that you add later do not change values or
finished stages.

The same rules apply when you train an imported model on your texts (launch.import_model).
"""

import dataclasses
import functools
import math
from collections.abc import Collection
from typing import Any

from configs import demo
from configs.experiment import Experiment
from configs.recipes import gristmill as recipe
from data_prep.config import EngineConfig, LanguageConfig, PagesConfig, ShardsConfig, UrlFilterConfig
from data_prep.sources.sizes import InputSizes
from lm.config import EvaluateConfig, SampleConfig, TokenizerConfig
from lm.config.tokenizer import SPECIAL_TOKENS
from lm.fields import with_values
from lm.terminal import quantity

FEW_DOCUMENTS = 1_000
"""With fewer documents, the end of each is held out: among few documents a share of whole ones may be empty, or not
typical."""
VOCABULARIES = 512, 8_192
EPOCHS = 3.75
"""Passes over the text: up to 4 are nearly as good as new text (Muennighoff et al. 2023, arXiv:2305.16264); the number
of tokens is an estimate."""
EPOCHS_IMPORTED = 2
"""An imported model already knows the language; more passes make it memorize the new text."""
MOST_TOKENS = 6_000_000
"""Maximum training tokens: about ten minutes on two cores."""
FEWEST_STEPS, WANTED_STEPS = 100, 400
NGRAM_ROWS_FROM = 10_000_000
"""Bytes of text from which embeddings of token pairs help. On smaller texts, which are read several times, they
memorize: 4 passes over 1 MB ended at 2.16 bits per byte with them and at 2.00 without."""
STEP_TOKENS = 2_048
"""Maximum tokens of a batch from scratch, and of a micro-batch of an imported model: it determines the memory."""
STEP_TOKENS_IMPORTED = 8_192
WARMUP_SHARE = 0.05


def get_config() -> Experiment:
    """Return the experiment with the values that do not depend on the texts. `fit` replaces the other values, which let
    each option be given alone: --train.steps 6 without --train.optimizer.warmup-steps."""
    base = demo.get_config()
    return Experiment(
        pages=PagesConfig(),
        # Rules for web pages are disabled: texts of any language, length and form are kept unchanged. Only exact
        # duplicates are dropped.
        documents=dataclasses.replace(
            base.documents,
            dump="own",
            steps=("exact_dedup",),
            url_filter=UrlFilterConfig(banned_domains=(), banned_words=()),
            language=LanguageConfig(languages=(), min_score=0.0, letters_only=False),
            personal_data=dataclasses.replace(recipe.PERSONAL_DATA, kinds=()),
        ),
        tokenizer=TokenizerConfig(
            vocab_size=VOCABULARIES[0],
            split_pattern="cl100k",
            train_characters=50_000_000,
            special_tokens=SPECIAL_TOKENS,
        ),
        shards=ShardsConfig(
            record_length=2**16, token_dtype="uint32", train_shards=1, validation_fraction=0.1, held_out="ends"
        ),
        model=dataclasses.replace(base.model, vocab_size=2**18),
        train=dataclasses.replace(
            base.train,
            steps=10_000,
            batch_size=8,
            optimizer=dataclasses.replace(base.train.optimizer, warmup_steps=0),
            sample_prompt="",
            sample_tokens=16,
            loss_chunks=1,
        ),
        evaluate=EvaluateConfig(stride=1, batch_size=16),
        # A model of short notes often predicts the end of the document, whose token is one of the last ids: a random
        # number near 1 selects it. With seed 0 the first is .98, and the sample was empty; with seed 1 it is .58.
        sample=SampleConfig(prompts=("",), temperatures=(0.5, 0.9), tokens=16, seed=1),
        engine=EngineConfig(max_failed=0.2),  # report files that are not text, and read the others
    )


class Choices:
    """Values for the options of `experiment` that the user has not `given`, with reasons."""

    def __init__(self, experiment: Experiment, given: Collection[str]):
        self.experiment, self.given = experiment, given
        self.values: dict[str, object] = {}
        self.reasons: list[str] = []

    def choose[Value](self, option: str, value: Value, reason: str = "") -> Value:
        """Set `option`, such as "train.steps", to `value` unless the user gave it. Return the option's value."""
        if option in self.given:
            now: Any = functools.reduce(getattr, option.split("."), self.experiment)
            return now
        self.values[option] = value
        if reason:
            self.reasons.append(f"{option} = {f'{value:,}' if isinstance(value, int) else value}: {reason}")
        return value

    def fitted(self) -> tuple[Experiment, list[str]]:
        """Return (experiment with the values, reasons). Raises UsageError if the options do not fit together."""
        return with_values(self.experiment, self.values), self.reasons


def fit(experiment: Experiment, sizes: InputSizes, given: Collection[str]) -> tuple[Experiment, list[str]]:
    """Return (experiment with values that suit `sizes`, the amount of text; [line with the reason for each value]).

    Options that the user has `given`, such as "train.steps", keep their values. A model that starts from a checkpoint
    keeps its shape and its tokenizer. Raises UsageError if the given options do not fit together.
    """
    choices = Choices(experiment, given)
    choose, model, train = choices.choose, experiment.model, experiment.train
    imported = bool(train.start.checkpoint)

    texts = f"{quantity(sizes.bytes, 'B')} of text in {sizes.documents:,} document{'s' if sizes.documents > 1 else ''}"
    few = sizes.documents < FEW_DOCUMENTS
    held_out = choose(
        "shards.held_out", "ends" if few else "documents",
        f"{texts}: {'few' if few else 'many'}, so " + ("the end of each is" if few else "whole ones are") + " held out",
    )  # fmt: skip
    share = min(0.1, max(500_000 / sizes.bytes, 0.005))
    if held_out == "documents":
        share = min(0.1, max(share, 20 / sizes.documents))
    share = choose(
        "shards.validation_fraction", round(share, 4),
        f"about {quantity(share * sizes.bytes, "B")} of validation text",
    )  # fmt: skip

    tokenizer = experiment.tokenizer
    vocabulary = tokenizer.vocab_size
    if not tokenizer.load:
        root = 2 ** round(math.log2(math.sqrt(sizes.bytes)))
        most = model.vocab_size if "model.vocab_size" in given else VOCABULARIES[1]
        vocabulary = choose(
            "tokenizer.vocab_size", min(max(root, VOCABULARIES[0]), most),
            f"about the square root of the bytes, from {VOCABULARIES[0]:,} to {VOCABULARIES[1]:,}",
        )  # fmt: skip
        choose("tokenizer.allow_fewer", tokenizer.algorithm in ("bpe", "characters"))
    choose("shards.token_dtype", "uint16" if vocabulary <= 2**16 else "uint32")
    bytes_per_token = 1.0 if tokenizer.algorithm == "characters" else min(0.5 * math.log2(vocabulary) - 2.3, 4.2)
    tokens = max((1 - share) * sizes.bytes / bytes_per_token, 1)

    if not imported:
        choose("model.vocab_size", vocabulary)
        large = sizes.bytes >= NGRAM_ROWS_FROM
        choose(
            "model.ngram_rows", model.ngram_rows if large else 0,
            "embeddings of pairs of tokens " + ("help here" if large else "would memorize so small a text"),
        )  # fmt: skip

    # The batch is small enough for WANTED_STEPS steps, and at most what fits into memory.
    context = model.context_length
    epochs = EPOCHS_IMPORTED if imported else EPOCHS
    to_read = min(epochs * tokens, MOST_TOKENS)
    most = max((STEP_TOKENS_IMPORTED if imported else STEP_TOKENS) // context, 1)
    batch = choose(
        "train.batch_size", min(power_of_2(to_read / (WANTED_STEPS * context)), power_of_2(most)),
        f"sequences of {context:,} tokens; small enough for about {WANTED_STEPS} steps",
    )  # fmt: skip
    by_rule = max(math.ceil(to_read / (batch * context)), FEWEST_STEPS)
    told = "{:.2g} passes over about {} tokens".format(by_rule * batch * context / tokens, quantity(tokens, ""))
    steps = choose("train.steps", by_rule, told)
    # Based on the steps of the rule, not on --train.steps: a run that is extended keeps its warmup.
    warmup = max(round(WARMUP_SHARE * by_rule), 1)
    choose(
        "train.optimizer.warmup_steps", min(warmup, steps // 4),
        f"{WARMUP_SHARE:.0%} of the steps",
    )  # fmt: skip
    if batch * context > STEP_TOKENS and "train.layout" not in given:
        parts = min(power_of_2(batch * context / STEP_TOKENS), batch)
        choose("train.micro_batches", parts if batch % parts == 0 else 1)
    if "train.layout" not in given:
        choose("train.loss_chunks", math.gcd(8, context) if vocabulary > VOCABULARIES[1] else 1)

    held_out_tokens = share * tokens / (1 - share)
    choose("train.validate_every", math.ceil(steps / 10))
    batches = max(math.ceil(min(held_out_tokens, 8 * STEP_TOKENS) / (batch * context)), 1)
    choose("train.validation_batches", batches, "at most what is held out")
    for name in ("sample_every", "checkpoint_every"):
        choose(f"train.{name}", math.ceil(steps / 5))
    choose("train.log_every", max(steps // 100, 1))
    choose("train.sample_tokens", min(96, context))
    choose("sample.tokens", max(min(160, context), 2))
    choose("evaluate.stride", max(context // 2, 1))
    choose("evaluate.batch_size", max(2 * STEP_TOKENS // context, 1))
    choose("shards.record_length", max(4096, context))
    return choices.fitted()


def power_of_2(number: float) -> int:
    """Return the largest power of 2 that is at most `number`, or 1."""
    return 2 ** max(math.floor(math.log2(max(number, 1))), 0)

"""Experiment: the config of a whole run, from crawl to sample."""

from dataclasses import dataclass

import tyro

from data_prep.config import ONE_PROCESS, DocumentsConfig, EngineConfig, PagesConfig, ShardsConfig
from lm.config import (
    ChatConfig,
    EvaluateConfig,
    ModelConfig,
    ReinforceConfig,
    SampleConfig,
    TokenizerConfig,
    TrainConfig,
)
from lm.errors import UsageError, shown
from lm.fields import Config, check_numbers, not_hashed

LONGEST_TOKEN = 256
"""Upper bound on the average bytes per token of a prompt; the longest tokens of published vocabularies have about
128."""
TOKEN_LIMITS = {"uint16": 2**16, "uint32": 2**31}  # the model uses int32 ids


@dataclass(frozen=True)
class Experiment(Config):
    """Config of a whole experiment, from web pages to samples."""

    pages: PagesConfig
    documents: DocumentsConfig
    tokenizer: TokenizerConfig
    shards: ShardsConfig
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    sample: SampleConfig
    chat: ChatConfig = ChatConfig()  # noqa: RUF009 - frozen
    reinforce: ReinforceConfig = ReinforceConfig()  # noqa: RUF009 - frozen
    engine: EngineConfig = not_hashed(default=ONE_PROCESS)  # noqa: RUF009 - a field
    fitted_to: tyro.conf.Suppress[tuple[int, ...]] = not_hashed(default=())  # noqa: RUF009 - a field
    """Sizes to which the function `fit` of the config file fitted the defaults (InputSizes or ConversationSizes in
    data_prep/sources/sizes.py); () if it did not."""

    @property
    def is_assistant(self) -> bool:
        """Whether the run is finetuned or reinforced, instead of pretrained."""
        return bool(self.chat.base or self.reinforce.base)

    def check_values(self):
        check_numbers(self)
        context, record = self.model.context_length, self.shards.record_length
        if context > record:
            raise UsageError(
                f"model.context_length = {context} is more than shards.record_length = {record}. "
                f"Use a context of at most {record}, or longer records."
            )
        if self.shards.packing == "best_fit" and record % context:
            raise UsageError(
                f"model.context_length = {context} does not divide shards.record_length = {record}, as shards.packing "
                "= best_fit requires. Choose a divisor for model.context_length, or shards.packing = concatenate."
            )
        self.train.check_model(self.model)
        for stage in self.train.stages(context):
            if stage.context_length % self.train.loss_chunks:
                name = "train.context_schedule" if stage.parts > 1 else "model.context_length"
                raise UsageError(
                    f"train.loss_chunks = {self.train.loss_chunks} does not divide {name} = {stage.context_length}. "
                    "Choose one of its divisors."
                )
        crawl = self.pages.common_crawl.crawl
        if self.pages.source == "common_crawl" and self.documents.dump != crawl:
            raise UsageError(
                f"documents.dump = {self.documents.dump!r}, but the pages are those of pages.common_crawl.crawl = "
                f"{crawl!r}. Documents record their crawl: also give --documents.dump {crawl}."
            )
        limit = TOKEN_LIMITS[self.shards.token_dtype]
        if self.tokenizer.vocab_size > limit:
            raise UsageError(
                f"tokenizer.vocab_size = {self.tokenizer.vocab_size}, but shards.token_dtype = "
                f"{self.shards.token_dtype} holds ids below {limit}. Set shards.token_dtype = uint32."
            )
        if self.model.vocab_size < self.tokenizer.vocab_size:
            raise UsageError(
                f"model.vocab_size = {self.model.vocab_size} is smaller than tokenizer.vocab_size = "
                f"{self.tokenizer.vocab_size}. Raise model.vocab_size."
            )
        for name, tokens in (
            ("train.sample_tokens", self.train.sample_tokens),
            ("sample.tokens", self.sample.tokens),
            ("evaluate.stride", self.evaluate.stride),
        ):
            if tokens > context:
                raise UsageError(
                    f"{name} = {tokens} is more than model.context_length = {context}. "
                    f"Lower {name}, or raise model.context_length."
                )
        check_prompts(self)
        if self.pages.keep_columns:
            from data_prep.select.apply_filters import refuse_own_columns  # imports the data stages

            refuse_own_columns(self.pages.keep_columns, self.documents)


def check_prompts(experiment: Experiment) -> None:
    """Raise UsageError if a prompt is not valid text, or is too long for its limit of tokens with any tokenizer. (The
    exact number of tokens is known only when there is a tokenizer.)"""
    sample, train = experiment.sample, experiment.train
    prompts = [("sample.prompts", prompt, "sample.tokens", sample.tokens) for prompt in sample.prompts]
    prompts.append(("train.sample_prompt", train.sample_prompt, "train.sample_tokens", train.sample_tokens))
    for option, prompt, limit, tokens in prompts:
        try:
            length = len(prompt.encode())
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{option}: {shown(prompt)} is not valid text: {prompt[error.start]!r} at character {error.start} "
                "cannot be encoded (was the input not UTF-8?). Give the prompt in UTF-8."
            ) from None
        by_character = experiment.tokenizer.algorithm == "characters"
        least = len(prompt) if by_character else -(-length // LONGEST_TOKEN)
        if least >= tokens:
            raise UsageError(
                f"{option}: {shown(prompt)} is {length:,} bytes, at least {least:,} tokens, but {limit} = {tokens}, "
                f"including the prompt. Shorten the prompt, or raise {limit}."
            )

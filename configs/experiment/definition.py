"""Experiment: the config of a whole run, from crawl to sample.

The config classes of data_prep are imported when a section is read, since commands that only use the model read none.
"""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tyro

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
from lm.fields import Config, check_numbers, is_of_type, not_hashed

if TYPE_CHECKING:
    from data_prep.config import DocumentsConfig, EngineConfig, PagesConfig, ShardsConfig

LONGEST_TOKEN = 256
"""Upper bound on the average bytes per token of a prompt; the longest tokens of published vocabularies have about
128."""
TOKEN_LIMITS = {"uint16": 2**16, "uint32": 2**31}  # the model uses int32 ids


def one_process() -> "EngineConfig":
    from data_prep.config import ONE_PROCESS

    return ONE_PROCESS


@dataclass(frozen=True)
class Experiment(Config):
    """Config of a whole experiment, from web pages to samples."""

    pages: "PagesConfig"
    documents: "DocumentsConfig"
    tokenizer: TokenizerConfig
    shards: "ShardsConfig"
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    sample: SampleConfig
    chat: ChatConfig = dataclasses.field(default_factory=ChatConfig)
    reinforce: ReinforceConfig = dataclasses.field(default_factory=ReinforceConfig)
    engine: "EngineConfig" = not_hashed(default_factory=one_process)  # noqa: RUF009 - a field
    fitted_to: tyro.conf.Suppress[tuple[int, ...]] = not_hashed(default=())  # noqa: RUF009 - a field
    """Sizes to which the function `fit` of the config file fitted the defaults (InputSizes or ConversationSizes in
    data_prep/sources/sizes.py); () if it did not."""

    @classmethod
    def unread(cls, saved: dict[str, Any], read: Callable[..., Any], fitted_to: tuple[int, ...]) -> "Experiment":
        """Return the experiment of the parsed config.json `saved`, whose sections are read at their first use by
        read([name], make): it returns make(name=section), which compares the section with those read before. Raises
        UsageError if `fitted_to` is invalid."""
        experiment = object.__new__(cls)
        experiment.__dict__.update(saved=saved, read=read, fitted_to=fitted_to)
        check_sizes(fitted_to)
        return experiment

    def __getattr__(self, name: str) -> Any:
        if name not in SECTIONS or "saved" not in self.__dict__:
            raise AttributeError(f"Experiment has no attribute {name}.")
        self.__dict__.update(self.__dict__["read"]([name], self.check_with))
        return self.__dict__[name]

    def with_sections(self, **sections: Any) -> "Experiment":
        """Return the experiment with other `sections`. Raises UsageError for values that cannot work. Unread sections
        that are compared with these are read, and the others stay unread."""
        if "saved" not in self.__dict__:
            return dataclasses.replace(self, **sections)
        for names in CHECKS.values():
            for name in names if sections.keys() & set(names) else ():
                getattr(self, name)
        experiment = object.__new__(Experiment)
        experiment.__dict__.update(self.__dict__ | self.check_with(**sections))
        return experiment

    def check_with(self, **sections: Any) -> dict[str, Any]:
        """Return `sections`. Raises UsageError if they cannot work, alone or together with the other sections that have
        been read."""
        for name, section in sections.items():
            kind = section_class(name)
            if not isinstance(section, kind):
                wrong = f"{shown(section)} ({type(section).__name__})"
                raise UsageError(f"Experiment.{name} must be {kind.__name__}; it is {wrong}.")
            check_numbers(section, f"{name}.")
        read = self.__dict__ | sections
        for check, names in CHECKS.items():
            if sections.keys() & set(names) and all(name in read for name in names):
                check(*(read[name] for name in names))
        return sections

    @property
    def is_assistant(self) -> bool:
        """Whether the run is finetuned or reinforced, instead of pretrained."""
        return bool(self.chat.base or self.reinforce.base)

    def __post_init__(self):
        check_sizes(self.fitted_to)
        self.check_with(**{name: getattr(self, name) for name in SECTIONS})


SECTIONS = tuple(field.name for field in dataclasses.fields(Experiment) if field.name != "fitted_to")
"""Names of the sections in their order."""


def section_class(name: str) -> Any:
    """Return the config class of the section `name`, or the type of `fitted_to`; classes of data_prep are imported
    now."""
    kind = next(field.type for field in dataclasses.fields(Experiment) if field.name == name)
    if isinstance(kind, str):
        from data_prep import config

        return getattr(config, kind)
    return tuple[int, ...] if name == "fitted_to" else kind


def check_sizes(sizes: tuple[int, ...]) -> None:
    """Raise UsageError unless `fitted_to` is whole numbers of 64 bits."""
    if not is_of_type(sizes, tuple[int, ...]) or any(abs(size) >= 2**63 for size in sizes):
        raise UsageError(f"Experiment.fitted_to must be whole numbers below 9.2e18; it is {shown(sizes)}.")


def check_records(model: ModelConfig, shards: "ShardsConfig") -> None:
    context, record = model.context_length, shards.record_length
    if context > record:
        raise UsageError(
            f"model.context_length = {context} is more than shards.record_length = {record}. "
            f"Use a context of at most {record}, or longer records."
        )
    if shards.packing == "best_fit" and record % context:
        raise UsageError(
            f"model.context_length = {context} does not divide shards.record_length = {record}, as shards.packing "
            "= best_fit requires. Choose a divisor for model.context_length, or shards.packing = concatenate."
        )


def check_training(model: ModelConfig, train: TrainConfig) -> None:
    train.check_model(model)
    for stage in train.stages(model.context_length):
        if stage.context_length % train.loss_chunks:
            name = "train.context_schedule" if stage.parts > 1 else "model.context_length"
            raise UsageError(
                f"train.loss_chunks = {train.loss_chunks} does not divide {name} = {stage.context_length}. "
                "Choose one of its divisors."
            )
    refuse_beyond_context(model, "train.sample_tokens", train.sample_tokens)


def check_pages(pages: "PagesConfig", documents: "DocumentsConfig") -> None:
    crawl = pages.common_crawl.crawl
    if pages.source == "common_crawl" and documents.dump != crawl:
        raise UsageError(
            f"documents.dump = {documents.dump!r}, but the pages are those of pages.common_crawl.crawl = "
            f"{crawl!r}. Documents record their crawl: also give --documents.dump {crawl}."
        )
    if pages.keep_columns:
        from data_prep.select.apply_filters import refuse_own_columns  # imports the data stages

        refuse_own_columns(pages.keep_columns, documents)


def check_token_ids(tokenizer: TokenizerConfig, shards: "ShardsConfig") -> None:
    limit = TOKEN_LIMITS[shards.token_dtype]
    if tokenizer.vocab_size > limit:
        raise UsageError(
            f"tokenizer.vocab_size = {tokenizer.vocab_size}, but shards.token_dtype = "
            f"{shards.token_dtype} holds ids below {limit}. Set shards.token_dtype = uint32."
        )


def check_vocabulary(model: ModelConfig, tokenizer: TokenizerConfig) -> None:
    if model.vocab_size < tokenizer.vocab_size:
        raise UsageError(
            f"model.vocab_size = {model.vocab_size} is smaller than tokenizer.vocab_size = "
            f"{tokenizer.vocab_size}. Raise model.vocab_size."
        )


def refuse_beyond_context(model: ModelConfig, name: str, tokens: int) -> None:
    if tokens > model.context_length:
        raise UsageError(
            f"{name} = {tokens} is more than model.context_length = {model.context_length}. "
            f"Lower {name}, or raise model.context_length."
        )


def check_prompts(tokenizer: TokenizerConfig, sample: SampleConfig) -> None:
    for prompt in sample.prompts:
        check_prompt(tokenizer, "sample.prompts", prompt, "sample.tokens", sample.tokens)


def check_prompt(tokenizer: TokenizerConfig, option: str, prompt: str, limit: str, tokens: int) -> None:
    """Raise UsageError if the prompt is not valid text, or is too long for its limit of tokens with any tokenizer. (The
    exact number of tokens is known only when there is a tokenizer.)"""
    try:
        length = len(prompt.encode())
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{option}: {shown(prompt)} is not valid text: {prompt[error.start]!r} at character {error.start} "
            "cannot be encoded (was the input not UTF-8?). Give the prompt in UTF-8."
        ) from None
    least = len(prompt) if tokenizer.algorithm == "characters" else -(-length // LONGEST_TOKEN)
    if least >= tokens:
        raise UsageError(
            f"{option}: {shown(prompt)} is {length:,} bytes, at least {least:,} tokens, but {limit} = {tokens}, "
            f"including the prompt. Shorten the prompt, or raise {limit}."
        )


CHECKS = {
    check: tuple(inspect.signature(check).parameters)
    for check in (
        check_records,
        check_training,
        check_pages,
        check_token_ids,
        check_vocabulary,
        lambda model, sample: refuse_beyond_context(model, "sample.tokens", sample.tokens),
        lambda model, evaluate: refuse_beyond_context(model, "evaluate.stride", evaluate.stride),
        lambda tokenizer, train: check_prompt(
            tokenizer, "train.sample_prompt", train.sample_prompt, "train.sample_tokens", train.sample_tokens
        ),
        check_prompts,
    )
}
"""{check: sections that it compares, which its parameters are named after}. Each raises UsageError."""

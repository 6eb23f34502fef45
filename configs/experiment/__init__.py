"""The one type that tells an experiment, from crawl to sample, and how a config file and a command line become it."""

import dataclasses
import difflib
import importlib.util
import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from configs.experiment.command_line import help_wanted, parse_options, print_help
from data_prep.config import DocumentsConfig, PagesConfig, ShardsConfig
from lm.config import EvaluateConfig, MixtureSource, ModelConfig, SampleConfig, TokenizerConfig, TrainConfig
from lm.errors import UsageError, shown
from lm.fields import Config, check_numbers

FOLDER_AND_WEIGHT = tyro.constructors.PrimitiveConstructorSpec(
    nargs=2,
    metavar="FOLDER WEIGHT",
    instance_from_str=lambda words: MixtureSource(words[0], float(words[1])),
    is_instance=lambda value: isinstance(value, MixtureSource),
    str_from_instance=lambda source: [source.tokens, str(source.weight)],
)
LONGEST_TOKEN = 256
"""Bytes a token, more than any prompt has on average: the longest of published vocabularies have some 128."""
TOKEN_LIMITS = {"uint16": 2**16, "uint32": 2**31}  # ids travel as int32 through the model


@dataclass(frozen=True)
class Experiment(Config):
    """One experiment, from web pages to samples."""

    pages: PagesConfig
    documents: DocumentsConfig
    tokenizer: TokenizerConfig
    shards: ShardsConfig
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    sample: SampleConfig

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self)
        context, record = self.model.context_length, self.shards.record_length
        if context > record:
            raise UsageError(
                f"model.context_length = {context} is more than shards.record_length = {record}. "
                f"Use a context of at most {record}, or longer records."
            )
        if context % self.train.loss_parts:
            raise UsageError(
                f"train.loss_parts = {self.train.loss_parts} does not divide model.context_length = {context}. Choose "
                "one of its divisors."
            )
        crawl = self.pages.common_crawl.crawl
        if self.pages.source == "common_crawl" and self.documents.dump != crawl:
            raise UsageError(
                f"documents.dump = {self.documents.dump!r}, but the pages are those of pages.common_crawl.crawl = "
                f"{crawl!r}. Documents must tell their crawl: give --documents.dump {crawl} too."
            )
        limit = TOKEN_LIMITS[self.shards.token_dtype]
        if self.tokenizer.vocabulary_size > limit:
            raise UsageError(
                f"tokenizer.vocabulary_size = {self.tokenizer.vocabulary_size}, but shards.token_dtype = "
                f"{self.shards.token_dtype} holds ids below {limit}. Set shards.token_dtype = uint32."
            )
        if self.model.vocabulary_size < self.tokenizer.vocabulary_size:
            raise UsageError(
                f"model.vocabulary_size = {self.model.vocabulary_size} is smaller than tokenizer.vocabulary_size = "
                f"{self.tokenizer.vocabulary_size}. Give the model at least as many rows as there are symbols."
            )
        for name, tokens in (
            ("train.sample_tokens", self.train.sample_tokens),
            ("sample.tokens", self.sample.tokens),
            ("evaluate.stride", self.evaluate.stride),
        ):
            if tokens > context:
                raise UsageError(
                    f"{name} = {tokens} is more than model.context_length = {context}. "
                    "Lower it, or lengthen the context."
                )
        check_prompts(self)


def check_prompts(experiment: Experiment) -> None:
    """Raises UsageError for a prompt that no tokenizer can fit into the tokens asked for, or that is no text; how many
    tokens it has is known only when there is a tokenizer."""
    sample, train = experiment.sample, experiment.train
    prompts = [("sample.prompts", prompt, "sample.tokens", sample.tokens) for prompt in sample.prompts]
    prompts.append(("train.sample_prompt", train.sample_prompt, "train.sample_tokens", train.sample_tokens))
    for option, prompt, limit, tokens in prompts:
        try:
            length = len(prompt.encode())
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{option}: {shown(prompt)} is no text: {prompt[error.start]!r} at character {error.start} is no "
                "character (bytes that are no UTF-8?). Give it in UTF-8."
            ) from None
        by_character = experiment.tokenizer.algorithm == "characters"
        least = len(prompt) if by_character else -(-length // LONGEST_TOKEN)
        if least >= tokens:
            raise UsageError(
                f"{option}: {shown(prompt)} is {length:,} bytes, at least {least:,} tokens, but {limit} = {tokens}, "
                "the prompt included. Shorten it, or ask for more tokens."
            )


def load_config(path: Path) -> Experiment:
    """The Experiment that `get_config()` in the Python file at `path` returns.

    Raises UsageError when there is no such file or function, or when it gives no valid Experiment.
    """
    refuse_no_config(path)
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UsageError(f"has no function get_config. A config has get_config() -> Experiment; {DEMO} shows one.")
        experiment = module.get_config()
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except SyntaxError as error:
        if error.filename != str(path):  # of a module that it imports, or bytes that are no text
            raise UsageError(f"{path} cannot be read as Python: {error}. Give a file such as {DEMO}.") from error
        line = shown((error.text or "").strip())
        raise UsageError(f"{path}, line {error.lineno}: {error.msg}, in {line}.") from error
    except (Exception, SystemExit) as error:  # whatever a config file does wrong is the user's to correct
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UsageError(f"{place}, gives no config: {type(error).__name__}: {error}") from error
    if not isinstance(experiment, Experiment):
        raise UsageError(f"get_config() in {path} returned {type(experiment).__name__}, but must return an Experiment.")
    return experiment


def refuse_no_config(path: Path) -> None:
    """Raises UsageError unless `path` is a file whose name ends in .py, and names the config that may be meant."""
    shipped = sorted(p.name for p in CONFIGS.glob("*.py") if p.stem != "__init__")
    name = shown(str(path), quotes=False)
    if os.path.isfile(path) and path.suffix == ".py":  # noqa: PTH113 - False for a name that is too long
        return
    if os.path.exists(path):  # noqa: PTH110
        what = "a folder" if path.is_dir() else "no Python file (.py)"
        raise UsageError(f"{name} is {what}, but a config is a Python file with get_config(), such as {DEMO}.")
    beside = [p for p in ([] if len(str(path)) > 4096 else path.parent.glob("*.py")) if p.stem != "__init__"]
    files = {p.name: str(p) for p in beside} | {one: f"configs/{one}" for one in shipped}
    likeness = lambda file: difflib.SequenceMatcher(a=f"{path.stem}.py", b=file).ratio()
    near = [file for file in sorted(files, key=lambda file: (-likeness(file), file))[:1] if likeness(file) > 0.6]
    raise UsageError(
        f"There is no config file {name}. {f'Did you mean {files[near[0]]}? ' if near else ''}"
        f"Shipped in configs/: {', '.join(shipped)}."
    )


def parse_command(
    program: str, description: str, arguments: list[str], reads: Sequence[str] | None = None
) -> tuple[Experiment, Path]:
    """The first two of `parse_run`."""
    experiment, workdir, _ = parse_run(program, description, arguments, reads)
    return experiment, workdir


def parse_run(
    program: str, description: str, arguments: list[str], reads: Sequence[str] | None = None
) -> tuple[Experiment, Path, Path | None]:
    """(experiment, workdir, the other run that it begins from, if any) from
    `CONFIG.py [--workdir DIR] [--from DIR] [--section.field value ...]`.

    `reads` are the sections that help shows at first ("documents.filters": those of the recipe's filters); all, if not
    given. Exits with code 0 after --help; raises
    UsageError on unknown or malformed options and on impossible values.
    """
    help_first = help_wanted(arguments[:1])
    if not help_first and (not arguments or arguments[0].startswith("-")):
        raise UsageError(
            f"Name the config file first.\n"
            f"usage: python -m {program} CONFIG.py [--workdir DIR] [--from DIR] [--section.field value ...]\n"
            f"For example: python -m {program} {DEMO}"
        )
    config_name = DEMO if help_first else arguments[0]
    words = arguments if help_first else arguments[1:]
    config_path = CONFIGS / "demo.py" if help_first else Path(config_name)
    base = load_config(config_path)

    # Without this, a source of train.mixture could be changed on the command line, but none could be added.
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(lambda info: FOLDER_AND_WEIGHT if info.type is MixtureSource else None)

    @dataclass(frozen=True)
    class Command(Experiment):
        workdir: str = str(Path("runs") / config_path.stem)
        """Folder of the run: every stage reads and writes here. It is empty, not there yet, or a run's already."""
        begin_from: Annotated[str | None, tyro.conf.arg(name="from", metavar="DIR")] = None
        """Folder of another run. Stages that it has finished with the same settings are taken from there, by hard links
        where possible, and only the others are made."""

    default = Command(**{field.name: getattr(base, field.name) for field in dataclasses.fields(base)})
    if help_wanted(words):
        sections = [field.name for field in dataclasses.fields(Experiment)]
        filters = [f"documents.{name}" for name in base.documents.sections]
        read = [one for name in reads or sections for one in (filters if name == "documents.filters" else [name])]
        print_help(program, description, config_name, default, words, read, registry)
        raise SystemExit(0)
    command = parse_options(Command, default, program, config_name, words, registry)
    fields = {field.name: getattr(command, field.name) for field in dataclasses.fields(Experiment)}
    source = None if command.begin_from is None else folder_of("--from", command.begin_from)
    return Experiment(**fields), folder_of("--workdir", command.workdir), source


def folder_of(option: str, given: str) -> Path:
    """The folder that an option names, `~` expanded. Raises UsageError where it names none."""
    if not given.strip():
        raise UsageError(f"{option} is {given!r}, which names no folder. Give one, such as runs/demo.")
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{option} {given} names the home of a user that does not exist here.") from error


CONFIGS = Path(__file__).parents[1]
DEMO = "configs/demo.py"

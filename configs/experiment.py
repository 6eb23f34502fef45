"""The one type that tells an experiment, from crawl to sample, and how a config file and a command line become it."""

import dataclasses
import importlib.util
import traceback
from dataclasses import dataclass
from pathlib import Path

import tyro

from data_prep.config import DocumentsConfig, PagesConfig, ShardsConfig
from lm.config import EvaluateConfig, MixtureSource, SampleConfig, TokenizerConfig, TrainConfig
from lm.errors import UsageError
from lm.fields import Config
from lm.model.config import ModelConfig

FOLDER_AND_WEIGHT = tyro.constructors.PrimitiveConstructorSpec(
    nargs=2,
    metavar="FOLDER WEIGHT",
    instance_from_str=lambda words: MixtureSource(words[0], float(words[1])),
    is_instance=lambda value: isinstance(value, MixtureSource),
    str_from_instance=lambda source: [source.tokens, str(source.weight)],
)
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


def load_config(path: Path) -> Experiment:
    """The Experiment that `get_config()` in the Python file at `path` returns.

    Raises UsageError when there is no such file or function, or when it gives no valid Experiment.
    """
    if not path.is_file():
        known = ", ".join(sorted(p.name for p in Path(__file__).parent.glob("*.py") if p.stem not in HELPERS))
        raise UsageError(f"There is no config file {path}. Shipped in configs/: {known}.")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        experiment = module.get_config()
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except Exception as error:  # whatever a config file does wrong is the user's to mend
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UsageError(f"{place}, gives no config: {type(error).__name__}: {error}") from error
    if not isinstance(experiment, Experiment):
        raise UsageError(f"get_config() in {path} returned {type(experiment).__name__}, but must return an Experiment.")
    return experiment


def parse_command(program: str, description: str, arguments: list[str]) -> tuple[Experiment, Path]:
    """(experiment, workdir) from `CONFIG.py [--workdir DIR] [--section.field value ...]`.

    Exits with code 0 after --help, 2 on unknown or malformed options; raises UsageError on impossible values.
    """
    usage = f"usage: python -m {program} CONFIG.py [--workdir DIR] [--section.field value ...]"
    if not arguments or arguments[0].startswith("-"):
        if arguments and arguments[0] in ("-h", "--help"):
            print(f"{usage}\n\n{description}\n\nEvery field: python -m {program} CONFIG.py --help")
            raise SystemExit(0)
        raise UsageError(f"{usage}\nFor example: python -m {program} configs/demo.py")
    config_path = Path(arguments[0])
    base = load_config(config_path)

    # Without this, a source of train.mixture could be changed on the command line, but none could be added.
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(lambda info: FOLDER_AND_WEIGHT if info.type is MixtureSource else None)

    @dataclass(frozen=True)
    class Command(Experiment):
        workdir: Path = Path("runs") / config_path.stem
        """Folder of the run: every stage reads and writes here."""

    command = tyro.cli(
        Command,
        prog=f"python -m {program} {arguments[0]}",
        description=description,
        default=Command(**{field.name: getattr(base, field.name) for field in dataclasses.fields(base)}),
        args=arguments[1:],
        # A part that may be None is an option a field where the config file gives it, and never a subcommand.
        config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
        registry=registry,
    )
    fields = {field.name: getattr(command, field.name) for field in dataclasses.fields(Experiment)}
    return Experiment(**fields), command.workdir


HELPERS = {"__init__", "experiment", "demo_pages", "families", "fineweb_recipe"}

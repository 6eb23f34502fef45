"""How a config file or a run folder, and a command line, become an Experiment."""

import dataclasses
import difflib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from configs.experiment.command_line import help_wanted, parse_options, parts_of, print_help
from configs.experiment.definition import Experiment
from configs.experiment.named_code import OWN_FILTERS, CodePolicy, part, trust_named
from configs.experiment.run_folder import RunFolder, experiment_json
from configs.layouts import layout_of
from lm.config import MixtureSource, MixtureStage
from lm.errors import UsageError, shown
from lm.storage import Url, is_url, local_folder, place_of

if TYPE_CHECKING:
    from data_prep.sources.sizes import InputSizes

FOLDER_AND_WEIGHT = tyro.constructors.PrimitiveConstructorSpec(
    nargs=2,
    metavar="FOLDER WEIGHT",
    instance_from_str=lambda words: MixtureSource(words[0], float(words[1])),
    is_instance=lambda value: isinstance(value, MixtureSource),
    str_from_instance=lambda source: [source.tokens, str(source.weight)],
)

STEP_AND_WEIGHTS = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="STEP:WEIGHT,...",
    instance_from_str=lambda words: mixture_stage(words[0]),
    is_instance=lambda value: isinstance(value, MixtureStage),
    str_from_instance=lambda stage: [f"{stage.step}:{','.join(map(str, stage.weights))}"],
)


def mixture_stage(word: str) -> MixtureStage:
    """`STEP:WEIGHT,WEIGHT,...` as train.mixture_schedule has it. Raises ValueError for anything else."""
    step, _, weights = word.partition(":")
    return MixtureStage(int(step), tuple(float(weight) for weight in weights.split(",")))


def load_config(path: Path) -> Experiment:
    """The Experiment that `get_config()` in the Python file at `path` returns. Raises as `load_config_and_fit`."""
    return load_config_and_fit(path)[0]


def load_config_and_fit(path: Path) -> tuple[Experiment, "Fit | None"]:
    """What `get_config()` in the Python file at `path` returns, and the file's function `fit`, if it has one. The file
    may import others beside it.

    Raises UsageError when there is no such file or function, or when it gives no valid Experiment.
    """
    refuse_no_config(path)
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # a config may import files beside it; at the end, so that they hide nothing
        sys.path.append(folder)
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
    return experiment, getattr(module, "fit", None)


def refuse_no_config(path: Path) -> None:
    """Raises UsageError unless `path` is a file whose name ends in .py, and names the config that may be meant."""
    shipped = sorted(p.name for p in CONFIGS.glob("*.py") if p.stem not in NO_CONFIGS)
    name = shown(str(path), quotes=False)
    if os.path.isfile(path) and path.suffix == ".py":  # noqa: PTH113 - False for a name that is too long
        return
    if os.path.exists(path):  # noqa: PTH110
        raise UsageError(f"{name} is no Python file (.py), but a config is one with get_config(), such as {DEMO}.")
    beside = [p for p in ([] if len(str(path)) > 4096 else path.parent.glob("*.py")) if p.stem not in NO_CONFIGS]
    files = {p.name: str(p) for p in beside} | {one: f"configs/{one}" for one in shipped}
    likeness = lambda file: difflib.SequenceMatcher(a=f"{path.stem}.py", b=file).ratio()
    near = [file for file in sorted(files, key=lambda file: (-likeness(file), file))[:1] if likeness(file) > 0.6]
    raise UsageError(
        f"There is no config file or run folder {name}. {f'Did you mean {files[near[0]]}? ' if near else ''}"
        f"Shipped in configs/: {', '.join(shipped)}."
    )


type Fit = Callable[[Experiment, InputSizes, Collection[str]], tuple[Experiment, list[str]]]
"""fit(experiment, sizes, given) of a config file, as in configs/own_text.py: the experiment with defaults that follow
the data, and a line for each with its reason. Options `given` by the user, such as "train.steps", stay as they are."""


class Command(NamedTuple):
    """What a command asks for."""

    experiment: Experiment
    workdir: Path
    source: Path | None
    """Folder of another run, from which this one begins."""
    options: Any
    """What the script's own options say, an instance of their class; None where it has none."""
    given: frozenset[str]
    """The options that were given, such as "train.steps"."""
    fit: Fit | None
    """The config file's rules for defaults that follow the data; they are not applied yet (launch/stages/fit.py)."""
    run: RunFolder | None
    """The run folder that was given instead of a config file."""


def parse_command(
    program: str, description: str, arguments: list[str], reads: Sequence[str] | None = None
) -> tuple[Experiment, Path]:
    """The first two of `parse_run`."""
    experiment, workdir, *_ = parse_run(program, description, arguments, reads)
    return experiment, workdir


def parse_run(
    program: str,
    description: str,
    arguments: list[str],
    reads: Sequence[str] | None = None,
    options: type | None = None,
) -> Command:
    """What `CONFIG.py [--workdir DIR] [--from DIR] [--section.field value ...]` asks for; in the place of CONFIG.py the
    folder of a run may stand, whose config it is then, and whose folder.

    `reads` are the sections that help shows at first ("documents.filters": those of the recipe's filters); all, if not
    given. `options` is a dataclass, with a default for each field, of what the script can be asked for besides. Exits
    with code 0 after --help, which runs no code that a run folder names; raises UsageError on unknown or malformed
    options, on impossible values and for code that a run folder may not run, and as RunFolder.experiment.
    """
    help_first = help_wanted(arguments[:1])
    if not help_first and (not arguments or arguments[0].startswith("-")):
        raise UsageError(
            f"Name the config file first, or the folder of a run that has one.\n"
            f"usage: python -m {program} CONFIG.py|RUN_FOLDER [--workdir DIR] [--from DIR] [--section.field value ...]"
            "\n"
            f"For example: python -m {program} {DEMO}"
        )
    config_name = DEMO if help_first else arguments[0]
    words = arguments if help_first else arguments[1:]
    config_path = CONFIGS / "demo.py" if help_first else Path(config_name)
    run = run_named(config_name)
    helping = help_wanted(words)
    policy: CodePolicy = "read only" if helping else "trust" if any(map(asks_trust, words)) else "refuse"
    saved = None if run is None else run.saved()
    fit: Fit | None = None
    if run is None:
        (base, fit), code = load_config_and_fit(config_path), []
    else:
        base, code = run.experiment_of(saved, policy)
    base, words = with_layout(base, words)

    # Without this, a source of train.mixture could be changed on the command line, but none could be added; the same of
    # a stage of train.mixture_schedule.
    registry = tyro.constructors.ConstructorRegistry()
    specs: dict[Any, Any] = {MixtureSource: FOLDER_AND_WEIGHT, MixtureStage: STEP_AND_WEIGHTS}
    registry.primitive_rule(lambda info: specs.get(info.type))
    bases: Any = (Experiment,) if options is None else (options, Experiment)

    @dataclass(frozen=True)
    class Asked(*bases):
        workdir: str = str(Path("runs") / config_path.stem) if run is None else config_name
        """Folder of the run, on a disk or in a bucket (s3://, gs://): every stage reads and writes here. It is empty,
        not there yet, or a run's already."""
        begin_from: Annotated[str | None, tyro.conf.arg(name="from", metavar="DIR")] = None
        """Folder of another run. Stages that it has finished with the same settings are taken from there, by hard links
        where possible, and only the others are made."""
        trust_code: tyro.conf.UseCounterAction[int] = 0  # a flag, which takes no value
        """Run code that the run folder names (filters, evaluators, Beam's options) and that you have not run from a
        config file here: each file is printed with its SHA-256 first."""

    default = Asked(**{field.name: getattr(base, field.name) for field in dataclasses.fields(base)})
    if helping:
        sections = [name for name in parts_of(base) if "." not in name]
        filters = [f"documents.{name}" for name in base.documents.sections]
        read = [one for name in reads or sections for one in (filters if name == "documents.filters" else [name])]
        if fit:
            from data_prep.sources.sizes import InputSizes

            base, _ = fit(base, InputSizes(bytes=1_000_000, documents=100), ())
            default = dataclasses.replace(default, **{name: getattr(base, name) for name in sections})
            description += "\n\nDefaults that follow the data are shown for 1 MB of text in 100 files."
        print_help(program, description, config_name, default, words, read, registry)
        own = part(saved, OWN_FILTERS) if isinstance(saved, dict) else {}
        if hidden := [name for name in own if name not in base.documents.sections]:
            print(f"\nNot listed: options of {', '.join(hidden)}, filters whose code --help does not run.")
        raise SystemExit(0)
    asked = parse_options(Asked, default, program, config_name, words, registry)
    part_of = lambda kind: kind(**{field.name: getattr(asked, field.name) for field in dataclasses.fields(kind)})
    source = None if asked.begin_from is None else folder_of("--from", asked.begin_from)
    trust_named(json.loads(experiment_json(part_of(Experiment))), code)
    workdir = folder_of("--workdir", asked.workdir)
    return Command(part_of(Experiment), workdir, source, options and part_of(options), options_in(words), fit, run)


def options_in(words: Sequence[str]) -> frozenset[str]:
    """The names of the options among the words of a command line, such as "train.batch_size"."""
    return frozenset(word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--"))


def asks_trust(word: str) -> bool:
    """Whether a word of the command line is --trust-code. What it trusts is known to processes that this one starts, by
    the environment: as it is now, and no other."""
    return word.replace("_", "-") == "--trust-code"


def run_named(name: str) -> RunFolder | None:
    """The run in the folder, on a disk or in a bucket, of that name; None where there is no such folder."""
    if is_url(name):
        return RunFolder.to_read(Url(name))
    return RunFolder(Path(name)) if os.path.isdir(name) else None  # noqa: PTH112 - False for a name too long


def folder_of(option: str, given: str) -> Path:
    """The folder that an option names, `~` expanded; of one in a bucket, the working copy. Raises UsageError where it
    names none."""
    if not given.strip():
        raise UsageError(f"{option} is {given!r}, which names no folder. Give one, such as runs/demo.")
    place = place_of(given)
    if isinstance(place, Path):
        return place
    if not place.name:
        raise UsageError(f"{option} {given} is a whole bucket. Give an address in it, such as {place}/runs/demo.")
    return local_folder(place, "reading" if option == "--from" else "runs")


def with_layout(experiment: Experiment, words: list[str]) -> tuple[Experiment, list[str]]:
    """The experiment on the hardware that --train.layout names, and the words with the row's whole name; both as they
    are without that option. Given twice, the last counts, as of any option. What else the words say comes later, and
    wins. Raises UsageError for a name of no row."""
    rest, words = [*words], []
    while rest:
        option, equals, name = rest[0].partition("=")
        is_layout = option.replace("_", "-") == "--train.layout"
        name = name if equals else "".join(rest[1:2])
        if not is_layout or not name.strip():  # nothing is asked for, or tyro will say that the value is missing
            words.append(rest.pop(0))
            continue
        row = layout_of(name, experiment.train.layout)
        model, train = row.of(experiment.model, experiment.train)
        experiment = dataclasses.replace(experiment, model=model, train=train)
        words.append(f"{option}={row.name}")
        del rest[: 1 if equals else 2]
    return experiment, words


CONFIGS = Path(__file__).parents[1]
NO_CONFIGS = ("__init__", "layouts")
"""Files beside the shipped configs that are none."""
DEMO = "configs/demo.py"

"""Build an Experiment from a config file or a run folder, and a command line."""

import dataclasses
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from configs.experiment.command_line import Flag, help_wanted, options_of, parse_options, print_help, usage_line
from configs.experiment.definition import SECTIONS, Experiment
from configs.experiment.named_code import OWN_FILTERS, CodePolicy, part, trust_named
from configs.experiment.run_folder import RUNS, RunFolder, experiment_json, names_in, similar_path
from lm.config import MixtureSource, MixtureStage, ReinforceConfig
from lm.errors import UsageError, for_terminal, shown
from lm.storage import Url, is_url, local_folder, place_of, refuse_local_folder

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
    """Parse an item of train.mixture_schedule such as "1000:0.7,0.3" (step, weights). Raises ValueError if invalid."""
    step, _, weights = word.partition(":")
    return MixtureStage(int(step), tuple(float(weight) for weight in weights.split(",")))


def load_config(path: Path) -> Experiment:
    """Return the Experiment from get_config() in the Python file at `path`. Raises UsageError if there is none."""
    return load_config_and_fit(path)[0]


def load_config_and_fit(path: Path, base: Experiment | None = None) -> tuple[Experiment, "Fit | None"]:
    """Return (the Experiment from get_config() in the Python file at `path`, or from get_config(base) with `base`; the
    file's function `fit`, or None). The file may import others in its folder. Raises UsageError if there is no file,
    function or valid Experiment."""
    refuse_no_config(path)
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # a config may import files in its folder; appended, so that they shadow nothing
        sys.path.append(folder)
    try:
        # Not exec_module: bytecode of a file changed within the same second to the same length would be stale.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        if not hasattr(module, "get_config"):
            raise UsageError(f"has no function get_config. A config has get_config() -> Experiment; {DEMO} shows one.")
        given = [] if base is None else [base]
        try:
            inspect.signature(module.get_config).bind(*given)
        except TypeError as error:
            raise UsageError(
                f"get_config: {error}. get_config() is for a new run; get_config(base) is for finetuning, and gets the "
                f"experiment of the run before it: python -m launch.finetune RUN {path}"
            ) from error
        experiment = module.get_config(*given)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except SyntaxError as error:
        if error.filename != str(path):  # in a module that it imports, or the file is not text
            raise UsageError(f"{path} is not valid Python: {error}. See {DEMO} for an example.") from error
        line = shown((error.text or "").strip())
        raise UsageError(f"{path}, line {error.lineno}: {error.msg}, in {line}.") from error
    except (Exception, SystemExit) as error:  # any error in a config file is for the user to fix
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UsageError(f"{place}, gives no config: {type(error).__name__}: {error}") from error
    if not isinstance(experiment, Experiment):
        raise UsageError(f"get_config() in {path} returned {type(experiment).__name__}. Return an Experiment.")
    return experiment, getattr(module, "fit", None)


def refuse_no_config(path: Path) -> None:
    """Raise UsageError, with a similar name or a list of the configs that exist, unless `path` is an existing .py
    file."""
    shipped = sorted(p.name for p in CONFIGS.glob("*.py") if p.stem not in NO_CONFIGS)
    name = shown(str(path), quotes=False)
    if os.path.isfile(path) and path.suffix == ".py":  # noqa: PTH113 - False for a name that is too long
        return
    if os.path.exists(path):  # noqa: PTH110
        raise UsageError(f"{name} is not a Python file. A config is a .py file with get_config(), such as {DEMO}.")
    shipped_like = similar_path(Path(CONFIGS.name, path.name), "*.py") if path.suffix else ""
    similar = similar_path(path) or similar_path(path, "*.py") or shipped_like
    runs = () if path.suffix else names_in(path.parent, RUNS)
    there = f"Runs in {path.parent}: {', '.join(runs)}" if runs else f"Shipped in configs/: {', '.join(shipped)}"
    raise UsageError(f"There is no config file or run folder {name}.{similar or f' {for_terminal(there)}.'}")


type Fit = Callable[[Experiment, Any, Collection[str]], tuple[Experiment, list[str]]]
"""fit(experiment, sizes, given) of a config file, as in configs/own_text.py and configs/finetune.py: returns the
experiment with defaults that depend on the data, and a line with the reason for each. Options `given` by the user, such
as "train.steps", are kept."""


class Command(NamedTuple):
    """A parsed command line; see `parse_run`."""

    experiment: Experiment
    workdir: Path
    source: Path | None
    """Run folder given by --from, whose finished stages are reused; None without this option."""
    options: Any
    """Values of the script's own options, as an instance of their dataclass; None if it has none."""
    given: frozenset[str]
    """Names of the options on the command line, such as "train.steps"."""
    fit: Fit | None
    """Function `fit` of the config file, for defaults that depend on the data; launch/stages/command.py calls it."""
    run: RunFolder | None
    """The run whose folder was given instead of a config file, or None."""


def parse_command(
    program: str, description: str, arguments: list[str], reads: Sequence[str] | None = None
) -> tuple[Experiment, Path]:
    """Return (experiment, workdir) of a script's command line; arguments and errors are those of `parse_run`."""
    experiment, workdir, *_ = parse_run(program, description, arguments, reads)
    return experiment, workdir


def parse_run(
    program: str,
    description: str,
    arguments: list[str],
    reads: Sequence[str] | None = None,
    options: type | None = None,
    from_run: str = "",
) -> Command:
    """Parse the arguments of a script: `CONFIG.py [--workdir DIR] [--from DIR] [--section.field value ...]`. A run
    folder can be given instead of CONFIG.py: its config is used, and the folder is the workdir. --from names another
    run folder, whose finished stages are reused.

    `program` ("launch.pretrain") and `description` are for help and messages. `reads` lists the config sections that
    the script uses (default: all), to be shown by --help; "documents.filters" stands for the sections of all filters.
    `options` is a dataclass of the script's own options, with a default for each field. With `from_run`, the name of a
    section, a run folder can precede CONFIG.py: get_config is called with the experiment of that run, and the field
    `base` of the section names it.

    --help prints the help and exits with code 0, without running code that a run folder names. For unknown or malformed
    options, tyro prints a message and the process exits with code 2. Raises UsageError for invalid values, untrusted
    code of a run folder, or a folder that is no run folder, InputError if its config.json is damaged or of another
    version.
    """
    help_first = help_wanted(arguments[:1])
    if not help_first and (not arguments or arguments[0].startswith("-")):
        raise UsageError(
            f"Give a config file or a run folder first.\nusage: {usage_line(program, bool(from_run))}\n"
            f"For example: python -m {program} {EXAMPLES.get(from_run, DEMO)}"
        )
    base_name = arguments.pop(0) if from_run and arguments[1:] and arguments[1].endswith(".py") else ""
    config_name = DEMO if help_first else arguments[0]
    words = arguments if help_first else arguments[1:]
    config_path = CONFIGS / "demo.py" if help_first else Path(config_name)
    run = run_named(config_name)
    helping = help_wanted(words)
    policy: CodePolicy = "read only" if helping else "trust" if any(map(asks_trust, words)) else "refuse"
    saved = None if run is None else run.saved()
    fit: Fit | None = None
    of_folder = dict[str, Any]()
    if base_name:
        base_run = None if is_url(base_name) else run_named(base_name)
        if base_run is None:
            raise UsageError(
                f"{shown(base_name)} is not a run folder on a disk.{similar_path(Path(base_name))} Give the run to "
                "start from, such as runs/demo; copy a run in a bucket to a disk first."
            )
        base, fit = load_config_and_fit(config_path, base_run.experiment())
        fit = fit if from_run == "chat" else None
        section = dataclasses.replace(getattr(base, from_run), base=str(Path(base_name).resolve()))
        base = base.with_sections(**{"reinforce": ReinforceConfig(), from_run: section})
    elif run is None:
        base, fit = load_config_and_fit(config_path)
    else:
        base = run.unread(saved, policy)
        of_folder = base.saved
    base, words = with_layout(base, words)

    # Without these, sources of train.mixture and stages of train.mixture_schedule could be changed on the command line,
    # but not added.
    registry = tyro.constructors.ConstructorRegistry()
    specs: dict[Any, Any] = {MixtureSource: FOLDER_AND_WEIGHT, MixtureStage: STEP_AND_WEIGHTS}
    registry.primitive_rule(lambda info: specs.get(info.type))

    # Only the sections with options on the command line are read; for help and for messages about unknown options, all.
    given = frozenset(word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--"))
    named = [name for name in SECTIONS if any(word.partition(".")[0] == name for word in given)]
    known = {*FOLDER_OPTIONS, *(options_of(options()) if options else ())}
    known.update(*(options_of(getattr(base, name), f"{name}.") for name in named))
    sections = SECTIONS if helping or {word.replace("_", "-") for word in given} - known else named
    fields = [(name, type(getattr(base, name)), getattr(base, name)) for name in sections]
    asked_of = dataclasses.make_dataclass("Sections", fields, frozen=True)
    bases: Any = (asked_of,) if options is None else (options, asked_of)

    @dataclass(frozen=True)
    class Asked(*bases):
        workdir: str = str(Path("runs") / config_path.stem) if run is None else config_name
        """Run folder, on a disk or in a bucket (s3://, gs://): every stage reads and writes here. It may be new, empty,
        or an existing run folder."""
        begin_from: Annotated[str | None, tyro.conf.arg(name="from", metavar="DIR")] = None
        """Another run folder. Stages that it completed with the same settings are reused, by hard links if possible;
        only the others run."""
        trust_code: Flag = 0
        """Run code named in the run folder (filters, evaluators, options of Beam) that you have not run from a config
        file on this machine. Prints each file with its SHA-256 first."""

    default = Asked()
    if helping:
        filters = [f"documents.{name}" for name in base.documents.sections]
        wanted = sections if reads is None else reads
        read = [one for name in wanted for one in (filters if name == "documents.filters" else [name])]
        if fit:
            from data_prep.sources.sizes import ConversationSizes, InputSizes

            example, sizes = "1 MB of text in 100 files", InputSizes(bytes=1_000_000, documents=100)
            if base_name:
                example, sizes = "200 conversations of 60 tokens", ConversationSizes(200, 12_000, 60, 50, 16 * 10**9)
            base, _ = fit(base, sizes, ())
            default = dataclasses.replace(default, **{name: getattr(base, name) for name in sections})
            description += f"\n\nDefaults that depend on the data are shown for {example}."
        print_help(
            usage_line(program, bool(from_run)), description, config_name, default, words, reads=read, registry=registry
        )
        own = part(saved, OWN_FILTERS) if isinstance(saved, dict) else {}
        if hidden := [name for name in own if name not in base.documents.sections]:
            print(f"\nNot listed: options of {', '.join(hidden)}; --help does not run the code of these filters.")
        raise SystemExit(0)
    asked = parse_options(default, program, words, registry)
    values_of = lambda names: {name: getattr(asked, name) for name in names}
    experiment = base.with_sections(**values_of(named)) if named else base
    source = None if asked.begin_from is None else folder_of("--from", asked.begin_from)
    if run is None:
        trust_named(json.loads(experiment_json(experiment)), {})
    elif named:
        changed = {name: dataclasses.asdict(getattr(experiment, name)) for name in named}
        trust_named(of_folder | json.loads(json.dumps(changed)), of_folder)
    workdir = folder_of("--workdir", asked.workdir)
    own: Any = options and values_of(field.name for field in dataclasses.fields(options))  # ty: ignore[invalid-argument-type]
    return Command(experiment, workdir, source, options and options(**own), given, fit, run)


def asks_trust(word: str) -> bool:
    """Whether a word of the command line is --trust-code: run code that the run folder names. Child processes inherit
    this trust, in exactly that code, through the environment."""
    return word.replace("_", "-") == "--trust-code"


def run_named(name: str) -> RunFolder | None:
    """Return the run in a folder, a path or the URL of a bucket's folder; None if there is no folder at the path."""
    if is_url(name):
        return RunFolder.to_read(Url(name))
    return RunFolder(Path(name)) if os.path.isdir(name) else None  # noqa: PTH112 - False for a name too long


def existing_run(name: str) -> RunFolder:
    """As `run_named`, but raises UsageError if there is no folder at the path."""
    if (run := run_named(name)) is None:
        raise UsageError(f"There is no run folder {shown(name, quotes=False)}. Give one, such as runs/demo.")
    return run


def folder_of(option: str, given: str) -> Path:
    """Return the folder `given` by an option, with `~` expanded; for one in a bucket, its local working copy. Raises
    UsageError if it is not a folder name."""
    if not given.strip():
        raise UsageError(f"{option} is {given!r}, which is not a folder. Give one, such as runs/demo.")
    place = place_of(given)
    if isinstance(place, Path):
        refuse_local_folder(place)
        return place
    if not place.name:
        raise UsageError(f"{option} {given} is a whole bucket. Give an address in it, such as {place}/runs/demo.")
    return local_folder(place, "reading" if option == "--from" else "runs")


def with_layout(experiment: Experiment, words: list[str]) -> tuple[Experiment, list[str]]:
    """Apply each option --train.layout in `words`, a command line. Returns (experiment with the fields of the named row
    of configs/layouts.py, `words` with the row's full name). If the option is repeated, the last one counts. Raises
    UsageError for an unknown name."""
    rest, words = [*words], []
    while rest:
        option, equals, name = rest[0].partition("=")
        is_layout = option.replace("_", "-") == "--train.layout"
        name = name if equals else "".join(rest[1:2])
        if not is_layout or not name.strip():  # not this option, or tyro reports the missing value
            words.append(rest.pop(0))
            continue
        from configs.layouts import layout_of

        row = layout_of(name, experiment.train.layout)
        model, train = row.of(experiment.model, experiment.train)
        experiment = experiment.with_sections(model=model, train=train)
        words.append(f"{option}={row.name}")
        del rest[: 1 if equals else 2]
    return experiment, words


CONFIGS = Path(__file__).parents[1]
FOLDER_OPTIONS = ("workdir", "from", "trust-code")
NO_CONFIGS = ("__init__", "layouts")
"""Files in configs/ that are not configs."""
DEMO = "configs/demo.py"
EXAMPLES = {"chat": "runs/demo configs/assistant.py", "reinforce": "runs/assistant configs/reinforce.py"}
"""{from_run: arguments}"""

"""Command-line help for the sections that a script reads, and suggestions for misspelled options."""

import contextlib
import dataclasses
import difflib
import io
import itertools
import re
import sys
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from lm.errors import UsageError, shown

HELP = ("-h", "--help", "-H", "--help-verbose", "--help-all")
OFTEN = (
    "pages.tables", "engine.workers", "tokenizer.vocab-size", "shards.validation-fraction", "train.steps",
    "train.batch-size", "model.layers", "model.width", "evaluate.stride", "sample.tokens",
)  # fmt: skip
"""Options that are changed most often."""
SYNONYMS = {
    "learning-rate": "lr", "width": "d-model hidden-size n-embd dim", "layers": "n-layer n-layers num-layers depth",
    "heads": "n-head n-heads num-heads", "kv-heads": "n-kv-heads num-key-value-heads", "vocab-size": "vocab",
    "mlp-width": "d-ff intermediate-size ffn-dim", "context-length": "seq-len block-size max-seq-len",
    "steps": "max-steps num-steps iterations", "micro-batches": "grad-accum gradient-accumulation-steps",
    "name": "rule optimizer", "workers": "num-workers jobs", "workdir": "output out out-dir output-dir run",
}  # fmt: skip
"""{last part of an option: names of it in other trainers}."""
EXPLAINED = 30
"""With more options than this, help lists only their names and values; -H explains them."""
MARKERS = (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
"""A part that may be None has options for its fields if the config file sets it, and is never a subcommand."""


def parts_of(config: Any, path: str = "") -> dict[str, Any]:
    """{"documents.extract": its config} of all parts, sections first; None for a part that is not set."""
    found = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{path}{field.name}"
        may_be_part = any(isinstance(kind, type) and dataclasses.is_dataclass(kind) for kind in kinds_of(field.type))
        if may_be_part and not isinstance(value, tuple):
            found[name] = value
            if value is not None:
                found |= parts_of(value, f"{name}.")
    return found


def kinds_of(hint: Any) -> tuple[Any, ...]:
    return (hint, *typing.get_args(hint))


def options_of(config: Any, path: str = "") -> list[str]:
    """Names of all options, such as "train.batch-size"."""
    parts, found = parts_of(config), []
    for field in dataclasses.fields(config):
        if field.name not in parts:
            marks = getattr(field.type, "__metadata__", ())
            name = next((mark.name for mark in marks if getattr(mark, "name", None)), field.name)
            found += [] if tyro.conf.Suppress in marks else [f"{path}{name}".replace("_", "-")]
        elif parts[field.name] is not None:
            found += options_of(parts[field.name], f"{path}{field.name}.".replace("_", "-"))
    return found


def nearest(given: str, known: Sequence[str]) -> list[str]:
    """Return the options in `known` that are similar to a misspelled one, most similar first; [] if there is none.

    Names are compared part by part: the last part counts most, then the section.
    """
    given = given.lstrip("-").replace("_", "-").lower()[:100]  # difflib takes quadratic time
    section, _, last = given.rpartition(".")

    def score(option: str) -> float:
        its_section, _, its_last = option.rpartition(".")
        names = [its_last, *SYNONYMS.get(its_last, "").split()]
        placed = likeness(section, its_section) if section else 0.5
        return max(0.6 * max(likeness(last, name) for name in names) + 0.4 * placed, likeness(given, option))

    ranked = sorted(known, key=lambda option: (-score(option), option not in OFTEN, len(option), option))
    return [option for option in ranked[:3] if score(option) > max(0.6, score(ranked[0]) - 0.1)]


def likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(a=a, b=b).ratio()


def refuse_unknown(unknown: Sequence[str], config: Any, program: str, config_name: str) -> typing.NoReturn:
    """Raise UsageError for words of the command line that are not options or values. `config_name` is "" for scripts
    without config."""
    names = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    ending = f"All options: python -m {program} {f'{config_name} --help-all' if config_name else '--help'}"
    if not names:
        raise UsageError(
            f"{shown(unknown[0])} belongs to no option. Every value comes after the name of its option, and a "
            f"text with blanks in quotes. {ending}"
        )
    name = names[0].lstrip("-").replace("_", "-")
    absent = [part.replace("_", "-") for part, value in parts_of(config).items() if value is None]
    if part := next((part for part in absent if name == part or name.startswith(f"{part}.")), ""):
        field = part.replace("-", "_")
        raise UsageError(
            f"--{shown(name, quotes=False)} is no option here, since {field} is None in {config_name}. Give it "
            "in a config file of your own (a copy of this one); then its fields are options too."
        )
    found = nearest(names[0], options_of(config))
    meant = f"Did you mean --{found[0]}? " if found else "A value that begins with a dash is written --NAME=VALUE. "
    others = f"Also like it: {', '.join(f'--{one}' for one in found[1:])}. " if found[1:] else ""
    raise UsageError(f"There is no option {shown(names[0], quotes=False)}. {meant}{others}{ending}")


def parse_options[Command](
    command: type[Command],
    default: Command,
    program: str,
    config_name: str,
    words: list[str],
    registry: Any = None,
    markers: tuple[Any, ...] = MARKERS,
) -> Command:
    """Return `default` with the values of the command line. Raises UsageError for invalid options and values. For
    `config_name` see `refuse_unknown`."""
    said = paper()
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(
                command, default=default, args=words, config=markers, registry=registry, return_unknown_args=True,
                add_help=False, prog=program,
            )  # fmt: skip
    except (SystemExit, UsageError) as error:
        # If there is a misspelled name, it is a more likely cause than conflicting values.
        known = set(options_of(default))
        names = [word for word in words if re.fullmatch(r"--?[a-zA-Z][\w.-]*(=.*)?", word, re.DOTALL)]
        strange = [word for word in names if word.partition("=")[0].lstrip("-").replace("_", "-") not in known]
        if strange and not written_on(said):
            refuse_unknown(strange, default, program, config_name)
        if isinstance(error, UsageError):
            raise
        raise UsageError(without_box(written_on(said))) from None
    if unknown:
        refuse_unknown(unknown, default, program, config_name)
    return parsed


def parse_alone[Command](command: type[Command], program: str, description: str, words: list[str]) -> Command:
    """Parse the command line of a script without config. Exits with code 0 after --help; raises like
    `parse_options`."""
    if help_wanted(words):
        tyro.cli(command, prog=f"python -m {program}", description=description, args=["--help"])
    return parse_options(command, command(), program, "", words, markers=())


VALUE_ERRORS = {
    r"invalid choice (.*) for argument '(--\S+)'. Expected one of \((.*?),?\)\.": r"\2 is \1. Choose one of \3.",
    r"Missing value for argument '(--\S+)'.*": r"\1 has no value. Give it after the name; one that begins with a dash "
    r"is written \1=VALUE.",
    r"Error parsing (--\S+): invalid literal for int\(\) with base 10: (.*)": r"\1 is no whole number in digits: \2",
    r"Error parsing (--\S+): could not convert string to float: (.*)": r"\1 is no number: \2",
    r"Error parsing (--\S+): Could not find valid parse for arguments: (.*)": r"\1 cannot be made of \2.",
    r"Error parsing (--\S+): (.*)": r"\1: \2",
}
"""{tyro's message: ours}."""


def without_box(text: str) -> str:
    """Convert tyro's message about a value to a plain sentence, without the help text of the option."""
    lines = [line.strip(" │|") if set(line) - set("╭╮╰╯─ +-") else "" for line in text.splitlines()[1:]]
    sentence = " ".join(itertools.takewhile(bool, itertools.dropwhile(lambda line: not line, lines)))
    sentence = re.split("─|Argument helptext:", sentence)[0].strip()
    for theirs, ours in VALUE_ERRORS.items():
        if match := re.fullmatch(theirs, sentence):
            said = re.sub(r"\\(\d)", lambda group: shown(match[int(group[1])], quotes=False), ours)
            form = [line for line in lines if line.startswith(match.groups()[0] + " ")] if "made of" in ours else []
            hints = [f"Give {line}." for line in form[:1]]
            return " ".join([said, *hints])
    return shown(sentence, quotes=False)


def help_wanted(words: list[str]) -> bool:
    return any(word in HELP for word in words)


def print_help(
    program: str, description: str, config_name: str, config: Any, words: list[str], reads: Sequence[str], registry: Any
) -> None:
    """Print usage, an example, and the options of the sections named after --help, or else of those that the script
    reads; --help-all prints all.

    Raises UsageError for an unknown section.
    """
    parts = parts_of(config)
    sections = [part for part in parts if "." not in part]
    following = words[next(i for i, word in enumerate(words) if word in HELP) + 1 :]
    asked = [word.replace("-", "_") for word in following if not word.startswith("-")]
    if strange := [word for word in asked[:1] if word not in parts]:
        near = difflib.get_close_matches(strange[0], list(parts), 1)
        raise UsageError(
            f"There is no section {shown(strange[0])}. {f'Did you mean {near[0]}? ' if near else ''}"
            f"Sections: {', '.join(sections)}."
        )
    asked = [part for part in asked if parts.get(part) is not None]
    everything = "--help-all" in words
    wanted = sections if everything else asked or list(reads)
    many = sum(option_count(parts.get(part)) for part in wanted) > EXPLAINED
    compact = many and not (everything or asked or {"-H", "--help-verbose"} & set(words))
    explain = ", -H to explain these" if compact and wanted != sections else ""
    print(
        f"usage:    python -m {program} CONFIG.py|RUN_FOLDER [--workdir DIR] [--from DIR] [--section.field value ...]\n"
        f"example:  python -m {program} {config_name} --workdir runs/mine{example(wanted, config)}\n"
        f"config:   {config_name}: what stands there is each option's default. Copy it for an experiment of your own.\n"
        f"help:     --help SECTION for one section, --help-all for all options{explain}\n"
        f"sections: {', '.join(sections)}\n\n{description}\n"
    )
    print(overview(parts, config) if wanted == sections and not everything else tyro_help(
        config, wanted, compact, program, registry
    ))  # fmt: skip


def option_count(part: Any) -> int:
    return len(options_of(part)) if part is not None else 1


def value_of(config: Any, option: str) -> Any:
    for name in option.replace("-", "_").split("."):
        config = getattr(config, name)
    return config


def example(wanted: Sequence[str], config: Any) -> str:
    """An example option of the shown sections, with its value."""
    for option in OFTEN:
        if any(option.startswith(part.replace("_", "-")) for part in wanted):
            return f" --{option} {value_of(config, option) or 'texts/'}"
    return ""


def overview(parts: dict[str, Any], config: Any) -> str:
    """One line per section, and the options that are changed most often."""
    lines = ["Options by section, each explained by --help SECTION:"]
    for part, fields in parts.items():
        if "." not in part:
            summary = re.split(r"(?<=[.;:])\s", " ".join((type(fields).__doc__ or "").split()))[0].rstrip(".;:")
            lines.append(f"  {part:<10} {option_count(fields):>3} options  {summary}")
    often = [f"  --{option:<30} (default: {value_of(config, option) or ''})" for option in OFTEN]
    return "\n".join([*lines, "", "Often changed:", *often])


def tyro_help(config: Any, wanted: list[str], compact: bool, program: str, registry: Any) -> str:
    """Help of tyro for the parts `wanted` and the run folder."""
    printed = paper()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(
            with_parts(config, wanted), args=["-h"], config=MARKERS, registry=registry, compact_help=compact,
            prog=program, description=" ",
        )  # fmt: skip
    lines = written_on(printed).splitlines()[1:]  # without tyro's usage and help options
    its_own = r"\W+(-[hH], --help|show this help message and exit)"
    return "\n".join(line for line in lines if not re.match(its_own, line)).strip("\n")


def paper() -> io.TextIOWrapper:
    """Buffer that replaces characters that the terminal's encoding lacks."""
    return io.TextIOWrapper(io.BytesIO(), encoding=getattr(sys.stdout, "encoding", None) or "ascii", errors="replace")


def written_on(sheet: io.TextIOWrapper) -> str:
    sheet.seek(0)
    return sheet.read()


def with_parts(config: Any, wanted: Sequence[str], path: str = "") -> type:
    """Subclass of the class of `config` that hides all fields except the `wanted` ones and those in them."""
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(config):
        name, value = f"{path}{field.name}", getattr(config, field.name)
        kind: Any = field.type
        default = dataclasses.field(default=value)
        if any(one.startswith(f"{name}.") for one in wanted):
            kind = with_parts(value, wanted, f"{name}.")
            default = dataclasses.field(default_factory=kind)
        elif name not in wanted and (path or dataclasses.is_dataclass(value)):
            kind = Annotated[kind, tyro.conf.Suppress]
        fields.append((field.name, kind, default))
    bases, doc = (type(config),), type(config).__doc__  # tyro reads field docstrings from the source of a base class
    return dataclasses.make_dataclass(
        type(config).__name__, fields, bases=bases, namespace={"__doc__": doc}, frozen=True
    )

"""Options on the command line by tyro: all of them are parsed, and help shows the sections that a script reads."""

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

type Flag = Annotated[int, tyro.conf.UseCounterAction, tyro.conf.arg(help_behavior_hint="")]
"""Type of an option without a value: 0 if absent."""
HELP = ("-h", "--help", "--help-all")
EXPLAINED = 30
"""With more options than this, --help lists only the names and values of the sections' options; --help SECTION explains
them. The script's own options are always explained."""
MARKERS = (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
"""A part that may be None has options for its fields if the config file sets it, and is never a subcommand."""


def parts_of(config: Any, path: str = "") -> dict[str, Any]:
    """Return {dotted name: config} of all sections and parts of `config`, such as "documents" and "documents.extract";
    None for a part that is not set."""
    found = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{path}{field.name}"
        kinds = (type(value), field.type, *typing.get_args(field.type))
        may_be_part = any(isinstance(kind, type) and dataclasses.is_dataclass(kind) for kind in kinds)
        if may_be_part and not isinstance(value, tuple):
            found[name] = value
            if value is not None:
                found |= parts_of(value, f"{name}.")
    return found


def options_of(config: Any, path: str = "") -> list[str]:
    """Return the names of all options of `config`, such as "train.batch-size"."""
    parts, found = parts_of(config), []
    for field in dataclasses.fields(config):
        if field.name not in parts:
            marks = getattr(field.type, "__metadata__", ())
            name = next((mark.name for mark in marks if getattr(mark, "name", None)), field.name)
            found += [] if tyro.conf.Suppress in marks else [f"{path}{name}".replace("_", "-")]
        elif parts[field.name] is not None:
            found += options_of(parts[field.name], f"{path}{field.name}.".replace("_", "-"))
    return found


def parse_options[Command](default: Command, program: str, words: list[str], registry: Any) -> Command:
    """Return `default` with the values of the options in `words`; `registry` has tyro's rules for special types. For
    unknown options and malformed values, tyro prints a message and exits with code 2; a line with the options that may
    be meant follows. Raises UsageError for values that a config refuses."""
    try:
        return tyro.cli(
            type(default), default=default, args=words, config=MARKERS, registry=registry, add_help=False,
            prog=f"python -m {program}",
        )  # fmt: skip
    except SystemExit:
        for name in [word[2:].partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]:
            if similar := similar_options(name, options_of(default)):
                print(f"{program}: there is no --{name}. Did you mean --{' or --'.join(similar)}?", file=sys.stderr)
        raise


ALIASES = {
    "lr": "learning-rate", "wd": "weight-decay", "warmup": "warmup-steps", "bs": "batch-size", "batch": "batch-size",
    "ctx": "context-length", "seq-len": "context-length", "block-size": "context-length",
    "max-length": "context-length", "max-steps": "steps", "iterations": "steps", "max-iters": "steps",
    "depth": "layers", "n-layer": "layers", "num-layers": "layers", "n-head": "heads", "num-heads": "heads",
    "dim": "width", "d-model": "width", "n-embd": "width", "hidden-size": "width", "grad-accum": "micro-batches",
    "gradient-accumulation-steps": "micro-batches", "grad-clip": "clip-norm", "output-dir": "workdir",
    "out": "workdir", "vocab": "vocab-size", "ema": "ema-decay",
}  # fmt: skip
"""{usual name elsewhere: last part of the option here}."""


def similar_options(name: str, known: Sequence[str]) -> list[str]:
    """Return the options that an unknown one such as "train.lr" may mean, at most three: those with the same last part
    or the one that ALIASES has for it, else with a similar one; of these, those of the same section. [] if `name` is
    known."""
    if name in known:
        return []
    last = name.rpartition(".")[2]
    lasts = {one: one.rpartition(".")[2] for one in known}
    for wanted in (last, ALIASES.get(last, ""), *difflib.get_close_matches(last, [*lasts.values()], 1, 0.8)):
        found = [one for one, end in lasts.items() if end == wanted]
        if found:
            shared = {one: shared_parts(name, one) for one in found}
            nearest = [one for one in found if shared[one] == max(shared.values())]
            return sorted(nearest, key=lambda one: (not one.startswith("train."), len(one)))[:3]
    return []


def shared_parts(name: str, other: str) -> int:
    """Number of parts with which two dotted names both begin."""
    pairs = zip(name.split("."), other.split("."), strict=False)
    return len([*itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)])


def help_wanted(words: list[str]) -> bool:
    return any(word in HELP for word in words)


def usage_line(program: str, takes_run: bool) -> str:
    """Usage of a script; with `takes_run`, the run to start from can precede the config."""
    run = "[RUN] " if takes_run else ""
    return f"python -m {program} {run}CONFIG.py|RUN_FOLDER [--workdir DIR] [--from DIR] [--section.field value ...]"


def print_help(
    usage: str,
    description: str,
    config_name: str,
    config: Any,
    words: list[str],
    *,
    reads: Sequence[str],
    registry: Any,
) -> None:
    """Print the usage and the options of the sections that `words` name after --help, by default those that the script
    `reads`; with --help-all, of all sections. Raises UsageError for an unknown section."""
    parts = parts_of(config)
    sections = [part for part in parts if "." not in part]
    following = words[next(i for i, word in enumerate(words) if word in HELP) + 1 :]
    asked = [word.replace("-", "_") for word in following if not word.startswith("-")]
    if strange := [word for word in asked if word not in parts]:
        raise UsageError(f"There is no section {shown(strange[0])}. Sections: {', '.join(sections)}.")
    asked = [part for part in asked if parts[part] is not None]
    wanted = sections if "--help-all" in words else asked or list(reads)
    print(
        f"usage:    {usage}\n"
        f"config:   {config_name}: its values are the defaults of the options. Copy it for your experiment.\n"
        f"help:     --help SECTION for one section, --help-all for all options\n"
        f"sections: {', '.join(sections)}\n\n{description}\n"
    )
    if wanted == sections and "--help-all" not in words:
        for part in sections:
            summary = re.split(r"(?<=[.;:])\s", " ".join((type(parts[part]).__doc__ or "").split()))[0].rstrip(".;:")
            print(f"  {part:<10} {len(options_of(parts[part])):>3} options  {summary}")
        return
    count = sum(len(options_of(parts[part])) if parts.get(part) is not None else 1 for part in wanted)
    compact = count > EXPLAINED and not asked and "--help-all" not in words
    shown_parts = [((), True, False), (wanted, False, True)] if compact else [(wanted, True, False)]
    for parts_shown, own, brief in shown_parts:
        print_boxes(with_parts(config, parts_shown, own=own), registry, compact=brief)


def print_boxes(command: type, registry: Any, compact: bool) -> None:
    """Print tyro's boxes of the options of `command`, without tyro's usage, help options and empty boxes."""
    # The terminal's encoding may lack the characters of tyro's boxes.
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    printed = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(
            command, args=["-h"], config=MARKERS, registry=registry, compact_help=compact, prog="", description=" "
        )
    printed.seek(0)
    its_own = r"\W+(-[hH], --help|show this help message and exit)"
    text = "\n".join(line for line in printed.read().splitlines()[1:] if not re.match(its_own, line))
    empty = r"(?m)^[^\w\n]+options[^\w\n]+\n([^\w\n]*\n)+(?=[^\w\n]+\w+ options)"
    print(re.sub(empty, "", text).strip("\n"))


def with_parts(config: Any, wanted: Sequence[str], path: str = "", own: bool = True) -> type:
    """Return a subclass of config's class in which help shows only the `wanted` parts and fields ("documents.extract"),
    what is in them and, if `own`, the fields that are not in a part. `path` is the prefix of the names."""
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(config):
        name, value = f"{path}{field.name}", getattr(config, field.name)
        kind: Any = field.type
        default = dataclasses.field(default=value)
        if any(one.startswith(f"{name}.") for one in wanted):
            kind = with_parts(value, wanted, f"{name}.")
            default = dataclasses.field(default_factory=kind)
        elif name not in wanted and (path or not own or dataclasses.is_dataclass(value)):
            kind = Annotated[kind, tyro.conf.Suppress]
        fields.append((field.name, kind, default))
    bases, doc = (type(config),), type(config).__doc__  # tyro reads field docstrings from the source of a base class
    return dataclasses.make_dataclass(
        type(config).__name__, fields, bases=bases, namespace={"__doc__": doc}, frozen=True
    )

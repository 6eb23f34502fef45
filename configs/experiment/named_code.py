"""Code that a config names, and the part of it that a run folder may run.

A config.json can lead to code of its author by: filter classes (`own_filters`); the source text of a FunctionFilter;
dotted names in fields marked NAMES_CODE (lm/fields.py: norms, optimizers, hooks, evaluators, ...); options of Beam,
which imports runners and starts commands; options of sbatch, which set variables of the jobs; the address of a Ray
cluster, whose results are pickles; XLA options, which can name files to write or programs to run. A fastText
model is loaded if its SHA-256 is in the config (data_prep/fasttext_file.py), since fastText does not check its files;
that SHA-256 is ignored in an untrusted run folder. lm/trusted_code.py identifies each piece of code and records which
ones this user trusts.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from lm.errors import UsageError, for_terminal
from lm.trusted_code import Code, is_known, known, module_code, remember, text_code, trust

OWN_FILTERS = "own_filters"
"""Key in config.json: {name: module and class} of the filters that are not part of the recipe."""
HASHES = ("sha256", "model_sha256")
"""Fields of filters with the SHA-256 of a fastText model."""
CODE_FIELDS = (
    "documents.extract.engine", "model.norm", "model.mlp", "model.block", "train.optimizer.name",
    "train.optimizer.schedule", "train.evaluators", "train.hooks", "train.step_metrics", "evaluate.evaluators",
    "chat.written_by", "reinforce.task",
)  # fmt: skip
"""Fields marked NAMES_CODE. A table, so that a run folder is checked before any section of its config is read."""
ENGINE_OPTIONS = ("address", "beam_options", "slurm_options")
"""Fields of the section engine that lead to code: those that only one executor reads."""
SHIPPED_EVALUATORS = {("train", "evaluators"): ("validation",), ("evaluate", "evaluators"): ("bits_per_byte",)}
"""Evaluators of an experiment whose own are all left out: it needs one."""
CodePolicy = Literal["refuse", "trust", "leave out", "read only"]
"""How to read a config.json with untrusted code: raise UsageError; print and trust the code; read the experiment
without it, for commands that do not need it; or, for --help, read only the options, without any filter classes of the
user."""


class Named(NamedTuple):
    """A value in config.json that names code of the user: the code's files or text, and how to remove the value."""

    codes: list[Code]
    leave_out: Callable[[], None]
    """Remove the value from the parsed config.json."""
    is_class: bool
    """Whether the value is a filter class, which must be imported to read the config."""
    is_hash: bool = False
    """Whether the value is the SHA-256 of a model's file, which is not loaded without it."""


def named_code(saved: dict) -> Iterator[Named]:
    """Yield the values in `saved`, the parsed config.json, that name code. Modules that cannot be found are skipped,
    because they cannot run."""
    own, documents = part(saved, OWN_FILTERS), part(saved, "documents")

    leave_out = lambda name: lambda: leave_out_filter(saved, name)
    for name, path in list(own.items()):
        if found := class_code(path):
            yield Named(found, leave_out(name), True)
    for name, section in list(documents.items()):  # identified by its fields, which no other filter has
        if isinstance(section, dict) and isinstance(source := section.get("source"), str) and "function" in section:
            yield Named([text_code(f"documents.{name}.source", source)], leave_out(name), False)
    for name, section in documents.items():
        for field in HASHES if isinstance(section, dict) else ():
            if isinstance(found := section.get(field), str) and found:
                blank = lambda section=section, field=field: section.update({field: ""})
                yield Named([text_code(f"documents.{name}.{field}", found)], blank, False, True)
    for *sections, field in (name.split(".") for name in CODE_FIELDS):
        section = functools.reduce(part, sections, saved)
        names = section.get(field)
        for name in list(names) if isinstance(names, list) else [names]:
            if found := class_code(name):
                instead = SHIPPED_EVALUATORS.get((*sections, field), ())
                leave = lambda names=names, name=name, instead=instead: leave_out_name(names, name, instead)
                yield Named(found, leave, False)
    if isinstance(options := part(saved, "train").get("xla_options"), list) and options:
        from configs.layouts import LAYOUTS

        shipped = {option for row in LAYOUTS.values() for option in row.xla_options}
        for option in list(options):
            if isinstance(option, str) and option not in shipped:
                leave = lambda option=option: options.remove(option)
                yield Named([text_code("train.xla_options", option)], leave, False)
    engine = part(saved, "engine")
    for field in ENGINE_OPTIONS:
        if isinstance(text := engine.get(field), str) and text.strip():
            yield Named([text_code(f"engine.{field}", text)], lambda field=field: engine.update({field: ""}), False)


def all_named_code(saved: dict) -> list[Named]:
    """Return all results of `named_code`. Finding a module can add a folder to sys.path, in which modules of earlier
    values may then be found, so it is repeated until sys.path stays the same."""
    path: list[str] = []
    found: list[Named] = []
    while path != sys.path:
        path = [*sys.path]
        found = list(named_code(saved))
    return found


def leave_out_filter(saved: dict, name: str) -> None:
    """Remove the user's filter `name` from the parsed config.json `saved`."""
    part(saved, OWN_FILTERS).pop(name, None)
    documents = part(saved, "documents")
    documents.pop(name, None)
    if isinstance(steps := documents.get("steps"), list):
        documents["steps"] = [step for step in steps if step != name]


def leave_out_name(names: Any, name: str, instead: tuple[str, ...]) -> None:
    """Remove `name` from the list `names`, and put `instead` there if the list is then empty. A single name, not in a
    list, stays: load_named refuses it where the object is needed."""
    if isinstance(names, list):
        names.remove(name)
        names += [] if names else instead


def part(saved: dict, name: str) -> dict:
    return found if isinstance(found := saved.get(name), dict) else {}


def class_code(path: Any) -> list[Code]:
    """Return the files, outside of this repository, that importing a class by its name executes; [] if none."""
    try:
        return module_code(path.rpartition(".")[0]) if isinstance(path, str) else []
    except ImportError:
        return []


def settle_code(saved: dict, policy: CodePolicy, folder: str) -> list[Code]:
    """Apply `policy` to the code named in `saved`, the parsed config.json of the run in `folder`: remove untrusted code
    from it, or raise UsageError. Returns the code that may run; this process and its children trust it from now on."""
    trusted: list[Code] = []
    refused: list[Code] = []
    for one in all_named_code(saved):
        unknown = [code for code in one.codes if not is_known(code)]
        if policy == "read only":
            if one.is_class:
                one.leave_out()
            continue
        if policy == "trust":
            for code in unknown:
                print(f"--trust-code: {for_terminal(str(code))}", file=sys.stderr, flush=True)
        elif unknown and (policy == "leave out" or one.is_hash):
            one.leave_out()
            continue
        elif unknown:
            refused += unknown
        trusted += one.codes
    if refused:
        listed = "\n".join(f"  {code}{known_as(code)}" for code in dict.fromkeys(refused))
        raise UsageError(
            f"{folder}/config.json names code that you have not trusted, and that can do anything with your files. It "
            f"was not run:\n{listed}\nRead it. If you trust it, add --trust-code, or use the run's config file "
            f"(CONFIG.py --workdir {folder})."
        )
    trust(trusted)
    return trusted


def known_as(code: Code) -> str:
    """Return a note for a message about unknown code if the user trusts other code of the same name; otherwise ""."""
    others = [one.sha256 for one in known() if one.name == code.name]
    return f"; you trust another version, SHA-256 {others[-1]}" if others else ""


def trust_named(saved: dict, of_folder: dict) -> None:
    """Trust the code that a config given by the user (a config file or options) names: it may run in this process and
    its children, and is added to the user's list of trusted code. `saved` is that config in the form of config.json.

    If the options change the config of a run folder, `of_folder` is the folder's config, else {}. Code that `of_folder`
    names is not trusted here: `settle_code` decides.
    """
    named = all_named_code(saved)
    others = {code for one in all_named_code(of_folder) for code in one.codes}
    given = [code for one in named for code in one.codes if code not in others]
    trust(given)
    remember(given)

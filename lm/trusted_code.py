"""Load code that a config names, such as a user's filter class, only if it is trusted.

A config file is Python, so code that it names is trusted. The run folder names the same code as text in config.json,
but a stranger may have written that folder. So each file of such code is identified by its SHA-256. The hashes are
stored in the user's state folder (`remember`), never in the run folder, and passed to child processes in an environment
variable (`trust`). configs/experiment/named_code.py finds the code that a config names. The program's own modules are
trusted.

The hash covers the executed file and the __init__.py of each package above it, not the files that these import. Modules
are loaded from the checked source, never from a cached .pyc next to it.
"""

import fcntl
import hashlib
import importlib
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from lm.errors import MALFORMED, InputError, UsageError
from lm.storage import file_sha256, write_atomically

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("configs", "data_prep", "launch", "lm", "viewer")
"""Packages of this program."""
STATE = "trusted_code.json"
VARIABLE = "GRISTMILL_TRUSTED_CODE"
"""Environment variable that passes trusted code to child processes."""


class Code(NamedTuple):
    """Code that a config names or contains, identified by its hash."""

    name: str
    """Dotted name of the module; for a text, its config field."""
    file: str
    """Absolute path of the module's file; "" for a text."""
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}{self.file and f', file {self.file}'}, SHA-256 {self.sha256}"


def text_code(name: str, text: str) -> Code:
    """Return the Code for source text in the config field `name`."""
    return Code(name, "", hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())


def module_code(module: str) -> list[Code]:
    """Return the files that importing a module would execute, packages first, without importing anything; [] if all
    belong to this program. Raises ImportError if the module is not on Python's path or is not a file."""
    found: list[Code] = []
    path: Sequence[str] | None = None
    parts = module.split(".")
    for count, part in enumerate(parts, 1):
        name = ".".join(parts[:count])
        if not part.isidentifier() or (count > 1 and path is None):
            raise ModuleNotFoundError(f"No module named {name!r}")
        origin, path = locate(name, path)
        if origin is None:
            continue  # a folder without __init__.py: no code
        if not Path(origin).is_file():
            raise ImportError(f"the module {name!r} is not in its own file, but in {origin}")
        file = Path(origin).resolve()
        if parts[0] in ROOMS and file.is_relative_to(REPOSITORY / parts[0]):
            continue
        found.append(Code(name, str(file), file_sha256(file)))
    if origin is None:
        raise ModuleNotFoundError(f"No module named {module!r}, only a folder")
    return found


def locate(name: str, path: Sequence[str] | None) -> tuple[str | None, list[str] | None]:
    """Find a module as import would, without importing it. Return (its file, None for a folder without __init__.py;
    folders of its submodules, or None). Searches the folders `path` (None: sys.path). Raises ImportError."""
    if (loaded := sys.modules.get(name)) is not None and name != "__main__":
        inside = getattr(loaded, "__path__", None)
        return getattr(loaded, "__file__", None) or (None if inside else "Python"), inside and list(inside)
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path) if hasattr(finder, "find_spec") else None
        if spec is None:
            continue
        if spec.loader is None:  # a namespace package, whose own list of folders would import the packages above
            folders = [Path(one, name.rpartition(".")[2]) for one in (sys.path if path is None else path)]
            return None, [str(folder) for folder in folders if folder.is_dir()]
        inside = spec.submodule_search_locations
        return spec.origin or "Python", None if inside is None else list(inside)
    if path is None and (folder := remembered_folder(name)):
        sys.path.append(folder)  # the config file's folder, from which an earlier command imported the module
        return locate(name, path)
    raise ModuleNotFoundError(f"No module named {name!r}")


def remembered_folder(name: str) -> str | None:
    """Return the folder of a trusted module or package; None if it is unknown or already on sys.path."""
    for code in reversed(known()):
        if code.file and code.name.partition(".")[0] == name and Path(code.file).is_file():
            file = Path(code.file)
            top = file.parent if file.name.startswith("__init__.") else file
            folder = str(top.parents[code.name.count(".")])
            if folder not in sys.path:
                return folder
    return None


def load_named(name: str, option: str) -> Any:
    """Import and return the user's object with a dotted name, such as my_module.MyHook, that the config has in
    `option`. Raises UsageError if its code is not trusted or there is no such object."""
    module, _, attribute = name.rpartition(".")
    if not (
        module in TRUSTED and module in sys.modules
    ):  # else it was checked already; the file may have changed since
        codes = checked_code(name, option)
        if unknown := [code for code in codes if not is_known(code)]:
            raise UsageError(
                f"{option} is {name}, code that you have not run from a config file here. It was not run: "
                f"{'; '.join(map(str, unknown))}. Read the code. If you trust it, add --trust-code, or "
                "run launch.evaluate with the config file first, which trusts the code."
            )
        pin(codes)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{option} is {name}, which cannot be imported: {error}. Correct it.") from error


def checked_code(name: str, option: str) -> list[Code]:
    """Return the files that importing the user's object with this dotted name would execute. Raises UsageError if its
    module does not exist or belongs to this program."""
    try:
        codes = module_code(name.rpartition(".")[0])
    except ImportError as error:
        raise UsageError(
            f"{option} is {name}: {error}. Put its file next to the config file, or its folder on PYTHONPATH."
        ) from error
    if not codes:
        raise UsageError(f"{option} is {name}, a part of this program that is no choice here. Name your own code.")
    return codes


def named[Value](name: str, shipped: Mapping[str, Value], option: str) -> Value:
    """Return shipped[name], or the user's object of this dotted name. Raises UsageError as `load_named` does."""
    return shipped[name] if name in shipped else load_named(name, option)


def code_hashes(names: Mapping[str, Iterable[str]]) -> dict[str, object]:
    """Return {"SHA-256 of the module NAME": hash} for the files of user code. `names` is {option: dotted names}."""
    codes = [code for option, given in names.items() for name in given for code in checked_code(name, option)]
    return {f"SHA-256 of the module {code.name}": code.sha256 for code in codes}


# Code that is known


def state_folder() -> Path:
    """Return the user's state folder, by default ~/.local/state/gristmill. Raises OSError if HOME is not set."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not Path(base).is_absolute():
        home = os.environ.get("HOME", "")
        if not Path(home).is_absolute():
            raise FileNotFoundError(2, "HOME is not set", home)
        base = Path(home) / ".local" / "state"
    return Path(base) / "gristmill"


def known() -> list[Code]:
    """Return all trusted code: files and texts of config files that this user has run, newest last, then those that the
    parent process trusts. Raises InputError if the list in the state folder is damaged."""
    return [*remembered(), *inherited()]


def is_known(code: Code) -> bool:
    """Return whether code with this name and hash is trusted. The same code under another name is not trusted, since it
    may import other modules."""
    return any((one.name, one.sha256) == (code.name, code.sha256) for one in known())


def remembered() -> list[Code]:
    """Return the code listed in the state folder; [] if there is no list or it cannot be read."""
    try:
        path = state_folder() / STATE
        data = path.read_bytes()
    except OSError:
        return []
    return codes_of(data, f"{path}, the list of trusted code,", "Delete it; commands with a config file write it")


def codes_of(data: bytes | str, what: str, remedy: str) -> list[Code]:
    """Parse a JSON list of trusted code. Raises InputError if it is damaged; the message begins with `what` and ends
    with `remedy`."""
    try:
        rows = [Code(*row) for row in json.loads(data)]
        if not all(isinstance(part, str) for row in rows for part in row):
            raise ValueError("its rows must be strings")
    except MALFORMED as error:
        raise InputError(f"{what} is damaged: {error}. {remedy}.") from error
    return rows


def remember(codes: Iterable[Code]) -> None:
    """Add code to the list in the state folder. If that cannot be written, print a warning to stderr."""
    if not (codes := list(codes)):
        return
    place = f"the state folder ({STATE})"
    try:
        folder = state_folder()
        place = str(folder / STATE)
        if set(codes) <= set(remembered()):
            return
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / f"{STATE}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # so that concurrent commands keep each other's entries
            rows = [*(code for code in remembered() if code not in codes), *codes]
            write_atomically(folder / STATE, json.dumps(rows, indent=1))
    except (OSError, InputError) as error:
        reason = error if isinstance(error, InputError) else getattr(error, "strerror", None) or error
        names = ", ".join(code.name for code in codes)
        print(
            f"{names} cannot be remembered as trusted in {place}: {reason}. Commands on the run folder will ask for "
            "--trust-code.",
            file=sys.stderr,
            flush=True,
        )


# Code that this process trusts


TRUSTED: dict[str, Code] = {}
"""{module: checked file}: importing one executes this file with this hash, or fails."""


def trust(codes: Iterable[Code]) -> None:
    """Allow this process, and processes that it starts, to load this code, but not a changed version of it."""
    if not (codes := list(codes)):
        return
    together = {(code.name, code.file): code for code in [*inherited(), *codes]}
    os.environ[VARIABLE] = json.dumps(list(together.values()))
    pin(codes)


def inherited() -> list[Code]:
    """Return the code that the parent process trusts. Raises InputError if the environment variable is damaged."""
    return codes_of(os.environ.get(VARIABLE) or "[]", f"The environment variable {VARIABLE}", "Unset it")


def inherit() -> None:
    """Trust the modules that the parent process trusts. Workers call this before they unpickle anything."""
    pin(inherited())


def pin(codes: Iterable[Code]) -> None:
    TRUSTED.update({code.name: code for code in codes if code.file})
    if TRUSTED and CheckedFinder not in sys.meta_path:
        sys.meta_path.insert(0, CheckedFinder)


def check(code: Code, data: bytes) -> None:
    """Raise UsageError if `data`, the bytes of the code's file, do not have the hash of the trusted code."""
    if (found := hashlib.sha256(data).hexdigest()) != code.sha256:
        raise UsageError(
            f"The file {code.file} of the module {code.name} has changed since it was checked: its SHA-256 is {found}, "
            f"and was {code.sha256}. Run the command again."
        )


class CheckedFinder:
    """Finder for sys.meta_path that loads trusted modules from the files that were checked."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        code = TRUSTED.get(name)
        if code is None:
            return None
        file = Path(code.file)
        loader = CheckedLoader(name, code.file) if file.suffix == ".py" else None
        if loader is None:  # an extension module: Python's own loader opens the file
            check(code, file.read_bytes())
        inside = [str(file.parent)] if file.name.startswith("__init__.") else None
        return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=inside)


class CheckedLoader(importlib.machinery.SourceFileLoader):
    """Loader that compiles the bytes whose hash was checked; a .pyc next to the file may hold other code."""

    def get_code(self, fullname: str) -> Any:
        data = self.get_data(self.path)
        check(TRUSTED[fullname], data)
        return self.source_to_code(data, self.path)

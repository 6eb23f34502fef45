"""Per-language thresholds from FineWeb-2's files: read from a folder, or downloaded once and verified.

A file is configs/{ISO 639-3}_{ISO 15924}.yml of huggingface/fineweb-2 (Apache-2.0), about 500 bytes. Files are read at
the start of a stage and sent to the workers in the config.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_prep.config import ByLanguageConfig, DocumentsConfig, LanguageThresholds
from data_prep.config.by_language import YAML_KEYS
from lm.errors import InputError, UsageError, shown
from lm.storage import StorageError, file_sha256, place_of, user_cache, write_atomically, writing

SHA256S = Path(__file__).with_name("fineweb_2.sha256")
"""Checksums of all files at commit d0defb24 of 27 October 2025, in the format of sha256sum."""
N_GRAMS = {"top_n_grams": [2, 3, 4], "dup_n_grams": [5, 6, 7, 8, 9, 10]}


def with_thresholds(config: DocumentsConfig, progress: Callable[[str], None] = print) -> DocumentsConfig:
    """Return `config` with the thresholds of its languages, so no file has to be read later.

    Raises InputError if a file cannot be read or downloaded, UsageError for a language without one.
    """
    by_language = config.by_language
    if by_language is None or by_language.thresholds:
        return config
    found = tuple(read_thresholds(name, by_language, progress) for name in sorted(set(config.language.languages)))
    return dataclasses.replace(config, by_language=dataclasses.replace(by_language, thresholds=found))


def thresholds_identity(config: DocumentsConfig, *names: str) -> dict[str, object]:
    """Return {description: SHA-256} of the named thresholds, by default all; {} if thresholds do not depend on the
    language."""
    if config.by_language is None:
        return {}
    found = with_thresholds(config, lambda line: None).thresholds_by_language
    told = {
        label: {name: value for name, value in dataclasses.asdict(one).items() if not names or name in names}
        for label, one in found.items()
    }
    return {"thresholds by language": hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()}


def refuse_other_stop_words(config: DocumentsConfig, marker: Mapping[str, Any] | None) -> None:
    """Raise UsageError if the stop words differ from those with which texts/ was measured, by its `marker`."""
    measured = (marker or {}).get("external_inputs", {})
    if any(measured.get(name) != value for name, value in thresholds_identity(config, "stopwords").items()):
        raise UsageError(
            "texts/ were measured with other stop words of these languages (documents.by_language). Give the files "
            "that the run had; or measure anew in another folder: --workdir"
        )


def read_thresholds(language: str, config: ByLanguageConfig, progress: Callable[[str], None]) -> LanguageThresholds:
    """Read the thresholds of one language. Raises like `with_thresholds`."""
    name = f"{language}.yml"
    if not config.folder:
        return parsed(language, fetched(language, config.address, progress), f"{config.address}/{name}")
    folder = place_of(config.folder)
    try:
        return parsed(language, (folder / name).read_bytes(), str(folder / name))
    except FileNotFoundError:
        there = (
            {path.name[:-4] for path in folder.iterdir() if path.name.endswith(".yml")} if folder.is_dir() else set()
        )
        if not there:
            raise InputError(
                f"documents.by_language.folder: {folder} has no file such as {name}. Give the folder of FineWeb-2's "
                "files (configs/ of huggingface/fineweb-2)."
            ) from None
        refuse_unknown(language, there, str(folder))
        raise
    except OSError as error:
        raise InputError(f"{folder / name} cannot be read: {error.strerror or error}. Mend the file.") from error


def refuse_unknown(language: str, known: set[str] | Mapping[str, str], place: str) -> None:
    """Raise UsageError if there are no thresholds for the language."""
    if language in known:
        return
    same = sorted(one for one in known if one[:3] == language[:3])
    near = same or difflib.get_close_matches(language, sorted(known), 3)
    raise UsageError(
        f"documents.language.languages has {language!r}, but there are no thresholds for it in {place}, which has "
        f"{len(known):,} languages. {f'Did you mean {", ".join(near)}? ' if near else ''}Or give a folder with a file "
        f"{language}.yml of your own (documents.by_language.folder)."
    )


@functools.cache
def known_sha256s() -> dict[str, str]:
    """Return {"deu_Latn": SHA-256 of its file}."""
    lines = (line.split() for line in SHA256S.read_text(encoding="ascii").splitlines())
    return {name.removesuffix(".yml"): sha256 for sha256, name in lines}


def fetched(language: str, address: str, progress: Callable[[str], None]) -> bytes:
    """Return the file from the user's cache or the server, with its SHA-256 verified. Raises like `with_thresholds`."""
    refuse_unknown(language, known_sha256s(), address)
    name, sha256 = f"{language}.yml", known_sha256s()[language]
    path = user_cache() / "fineweb-2" / f"{name}-{sha256[:16]}"
    if path.is_file() and file_sha256(path) == sha256:
        return path.read_bytes()
    own = "To use your own files, give their folder: --documents.by-language.folder fineweb-2/configs"
    url = place_of(address) / name
    try:
        data = url.read_bytes()
    except (FileNotFoundError, StorageError) as error:
        raise InputError(f"{url} cannot be fetched: {error}. {own}") from error
    if (received := hashlib.sha256(data).hexdigest()) != sha256:
        raise InputError(
            f"{url} is not the file that is expected.\n  SHA-256 expected: {sha256}\n  SHA-256 received: {received}\n"
            f"The server, or something on the way, sent another. {own}"
        )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data, path.parent)
    progress(f"fetched the thresholds {name}")
    return data


def parsed(language: str, data: bytes, place: str) -> LanguageThresholds:
    """Parse the thresholds in a file; `place` names it in messages. Raises InputError if the file is incomplete or
    invalid."""
    import yaml

    def refused(why: str) -> InputError:
        return InputError(
            f"{place} has no thresholds as FineWeb-2's files have them: {why}. Mend the file, or bring it anew."
        )

    try:
        told = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise refused(f"it is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(told, dict):
        raise refused(f"it holds {shown(told)}")
    if wrong := sorted(YAML_KEYS.symmetric_difference(told), key=str):
        raise refused(f"{', '.join(map(str, wrong))} {'is' if len(wrong) == 1 else 'are'} missing or unknown")
    values = dict(told)
    for name, sizes in N_GRAMS.items():
        try:
            pairs = [(int(size), float(value)) for size, value in told[name]]
        except (TypeError, ValueError):
            raise refused(f"{name} is {shown(told[name])}") from None
        if [size for size, _ in pairs] != sizes:
            raise refused(f"{name} has the sizes {[size for size, _ in pairs]}, not {sizes}")
        values[name] = tuple(value for _, value in pairs)
    if not isinstance(told["stopwords"], list):
        raise refused(f"stopwords is {shown(told['stopwords'])}")
    values["stopwords"] = tuple(told["stopwords"])
    try:
        return LanguageThresholds(language=language, **values)
    except UsageError as error:
        raise refused(str(error)) from None

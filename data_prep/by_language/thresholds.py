"""Thresholds per language from FineWeb-2's files, or from your own files in the same form.

A file is configs/{ISO 639-3}_{ISO 15924}.yml of huggingface/fineweb-2, about 500 bytes. The files are read at the start
of a stage; workers get the thresholds in the config.
"""

import dataclasses
import difflib
import functools
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Collection, Mapping
from typing import Any

from data_prep.config import DocumentsConfig, LanguageThresholds
from data_prep.config.by_language import YAML_KEYS
from lm.errors import InputError, UsageError, shown
from lm.storage import place_of, user_cache, write_atomically, writing
from lm.tokenizer.published import download

ARCHIVE = "https://codeload.github.com/huggingface/fineweb-2/tar.gz/d0defb24f193bb9a5a11b8b14524a03c4858e1b6"
"""All 1,929 files (Apache-2.0), at the commit of 27 October 2025."""
SHA256 = "b276f04fc6ca120cd3f4abd2877658822ebb93885f2b04305c7961c02a20b021"
"""SHA-256 of sha256sum's lines for the files, by name. An archive of a commit may be compressed differently each
time."""
MAX_BYTES = 1 << 16
DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error)
N_GRAMS = {"top_n_grams": [2, 3, 4], "dup_n_grams": [5, 6, 7, 8, 9, 10]}


def with_thresholds(config: DocumentsConfig) -> DocumentsConfig:
    """Return `config` with the thresholds of its languages filled in from files, so that workers read none. Raises
    InputError if a file cannot be read, UsageError for a language without one."""
    by_language = config.by_language
    if by_language is None or by_language.thresholds:
        return config
    found = tuple(read_thresholds(name, by_language.folder) for name in sorted(set(config.language.languages)))
    return dataclasses.replace(config, by_language=dataclasses.replace(by_language, thresholds=found))


def thresholds_identity(config: DocumentsConfig, *names: str) -> dict[str, object]:
    """Return {description: SHA-256} of the thresholds of all languages, or only of the thresholds called `names`; {} if
    the config has no thresholds by language."""
    if config.by_language is None:
        return {}
    found = with_thresholds(config).thresholds_by_language
    values = {
        label: {name: value for name, value in dataclasses.asdict(one).items() if not names or name in names}
        for label, one in found.items()
    }
    return {"thresholds by language": hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()}


def refuse_other_stop_words(config: DocumentsConfig, marker: Mapping[str, Any] | None) -> None:
    """Raise UsageError if texts/ was measured with other stop words than those of the config. `marker` is the stored
    record of that measurement: its "external_inputs" have the hash of the stop words."""
    measured = (marker or {}).get("external_inputs", {})
    if any(measured.get(name) != value for name, value in thresholds_identity(config, "stopwords").items()):
        raise UsageError(
            "texts/ were measured with other stop words of these languages (documents.by_language). Give the files "
            "that the run had; or measure again in another folder: --workdir"
        )


def read_thresholds(language: str, given: str) -> LanguageThresholds:
    """Return the thresholds of a language such as "deu_Latn", from the folder `given` or, if it is "", FineWeb-2's
    files. Raises like `with_thresholds`."""
    name = f"{language}.yml"
    if not given:
        files = published_files()
        refuse_unknown(language, files, "FineWeb-2")
        return parse_thresholds(language, files[name], f"{ARCHIVE}: {name}")
    folder = place_of(given)
    try:
        return parse_thresholds(language, (folder / name).read_bytes(), str(folder / name))
    except FileNotFoundError:
        files = {path.name for path in folder.iterdir() if path.name.endswith(".yml")} if folder.is_dir() else set()
        if not files:
            raise InputError(
                f"documents.by_language.folder: {folder} has no file such as {name}. Give the folder of FineWeb-2's "
                "files (configs/ of huggingface/fineweb-2)."
            ) from None
        refuse_unknown(language, files, str(folder))
        raise
    except OSError as error:
        raise InputError(f"{folder / name} cannot be read: {error.strerror or error}. Correct the file.") from error


@functools.cache
def published_files() -> dict[str, bytes]:
    """Return {file name: contents} of FineWeb-2's thresholds, from the user's cache or downloaded. Raises InputError if
    the download fails or has another SHA-256 than expected."""
    own = "To use your own files, give their folder: --documents.by-language.folder fineweb-2/configs"
    path = user_cache() / "fineweb-2" / f"{SHA256[:16]}.tar.gz"
    try:
        files = files_in(path.read_bytes()) if path.is_file() else {}
    except DAMAGE:
        files = {}
    if digest(files) == SHA256:
        return files
    data, problem = download(ARCHIVE)  # not by lm.storage, which needs the length: GitHub does not report it
    try:
        if problem:
            raise InputError(problem)
        files = files_in(data)
    except (InputError, *DAMAGE) as error:
        raise InputError(f"{ARCHIVE} cannot be downloaded. {own}\n  {error}") from error
    if (received := digest(files)) != SHA256:
        raise InputError(
            f"{ARCHIVE} does not have the expected files.\n  SHA-256 expected: {SHA256}\n  SHA-256 received: "
            f"{received}\nThe server, or something in between, sent other files. {own}"
        )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data, path.parent)
    return files


def files_in(archive: bytes) -> dict[str, bytes]:
    """Return {file name: contents} of configs/*.yml in a .tar.gz, sorted by name. Raises DAMAGE."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            _, _, name = member.name.partition("/configs/")
            if not member.isfile() or not name.endswith(".yml") or "/" in name:
                continue
            file = members.extractfile(member)
            assert file is not None
            if member.size > MAX_BYTES:
                raise tarfile.TarError(f"{name} has {member.size:,} bytes; the limit is {MAX_BYTES:,}")
            found[name] = file.read()
    return dict(sorted(found.items()))


def digest(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of the lines that sha256sum prints for the files, {name: contents}."""
    lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def refuse_unknown(language: str, files: Collection[str], place: str) -> None:
    """Raise UsageError that lists similar languages if `files`, the file names in `place`, lack this language."""
    known = {name.removesuffix(".yml") for name in files}
    if language in known:
        return
    same = sorted(one for one in known if one[:3] == language[:3])
    near = same or difflib.get_close_matches(language, sorted(known), 3)
    raise UsageError(
        f"documents.language.languages has {language!r}, but there are no thresholds for it in {place}, which has "
        f"{len(known):,} languages. {f'Did you mean {", ".join(near)}? ' if near else ''}Or give a folder with your "
        f"file {language}.yml (documents.by_language.folder)."
    )


def parse_thresholds(language: str, data: bytes, place: str) -> LanguageThresholds:
    """Parse a language's file of thresholds; `place` names it in messages. Raises InputError if it is invalid."""
    import yaml

    def refused(why: str) -> InputError:
        return InputError(
            f"{place} is not a file of thresholds like FineWeb-2's: {why}. Correct the file, or copy it again."
        )

    try:
        values = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise refused(f"it is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise refused(f"it contains {shown(values)}")
    if wrong := sorted(YAML_KEYS.symmetric_difference(values), key=str):
        raise refused(f"{', '.join(map(str, wrong))} {'is' if len(wrong) == 1 else 'are'} missing or unknown")
    for name, sizes in N_GRAMS.items():
        try:
            pairs = [(int(size), float(value)) for size, value in values[name]]
        except (TypeError, ValueError):
            raise refused(f"{name} is {shown(values[name])}") from None
        if [size for size, _ in pairs] != sizes:
            raise refused(f"{name} has the sizes {[size for size, _ in pairs]} instead of {sizes}")
        values[name] = tuple(value for _, value in pairs)
    if not isinstance(values["stopwords"], list):
        raise refused(f"stopwords is {shown(values['stopwords'])}")
    values["stopwords"] = tuple(values["stopwords"])
    try:
        return LanguageThresholds(language=language, **values)
    except UsageError as error:
        raise refused(str(error)) from None

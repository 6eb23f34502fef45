"""Text datasets of tensorflow-datasets stored as ArrayRecord, read without TensorFlow in ranges of rows."""

import json
import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.config.pages import PagesConfig, TfdsPages
from data_prep.documents import Damage, Document, OnDamage
from data_prep.sources.columns import NoDocumentError, document_of, lookup
from data_prep.sources.listing import Listed
from data_prep.sources.manifest import InputFile
from lm.errors import InputError, UsageError, network_reason, shown

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

NAME = re.compile(r"[a-z][a-z0-9_]*(/[\w.+=-]+)?:\d+\.\d+\.\d+")
INFO = "dataset_info.json"
ROWS_AT_ONCE = 256


def fetch(config: PagesConfig, out: Path, progress: Callable[[str], None]) -> tuple[list[InputFile], list[dict]]:
    """Return (the split of the dataset as input files of `rows_per_file` rows each, []), as there are no packages.
    Downloads and prepares the dataset if it is missing. Raises UsageError for an unknown name, split or feature,
    InputError if the dataset cannot be downloaded or read."""
    split, text_field = config.tfds.split, config.text_field
    builder = opened(config.tfds, progress)
    dataset, source = builder.info.full_name, source_of(builder, split)
    if not len(source):
        raise InputError(f"The split {split!r} of {dataset} is empty. Give another split.")
    with library_errors(f"{dataset} cannot be read"):
        first = source[0]
    if not isinstance(value := lookup(nested(first), text_field), (bytes, str)):
        what = "has no feature" if value is None else f"has {type(value).__name__}, not text, in"
        raise UsageError(
            f"{dataset} {what} {text_field!r}; its features are {', '.join(map(repr, sorted(first)))}. "
            "Set pages.text_field to the one with the text."
        )
    folder = Path(builder.data_dir).absolute()
    size, starts = split_bytes(builder, split), range(0, len(source), config.tfds.rows_per_file)
    progress(f"{dataset}, {split}: {len(source):,} rows in {len(starts)} parts")
    files = []
    for number, start in enumerate(starts):
        stop = min(start + config.tfds.rows_per_file, len(source))
        name = f"{dataset}/{split}/{number:05d}"
        files.append(InputFile(folder, name, "tfds", size, stop - start, (start, stop), split, text_field))
    return files, []


def inputs(config: PagesConfig) -> list[Listed]:
    """Return the files of a dataset given as a folder; [] for one given by name, which is not the user's."""
    dataset = Path(config.tfds.dataset).expanduser()
    if not (dataset / INFO).is_file():
        return []
    paths = [path.absolute() for path in sorted(dataset.iterdir()) if path.is_file()]
    return [Listed(path, path.name, path.stat().st_size) for path in paths]


def read(file: InputFile, on_damage: OnDamage, counts: Counter[str]) -> Iterator[Document]:
    """Yield the documents in the range of rows `file.rows`, by default all; see columns.py for their fields. A row
    without an id gets "NAME/NUMBER". Rows without a usable text are passed to `on_damage`; `counts` is not used. Raises
    InputError if the dataset cannot be read."""
    source = source_of(builder_in(str(file.path)), file.split)
    start, stop = file.rows or (0, len(source))
    if not 0 <= start <= stop <= len(source):
        raise InputError(
            f"{file.path} has {len(source)} rows in {file.split}, not rows {start} to {stop}. Fetch the pages again."
        )
    for begin in range(start, stop, ROWS_AT_ONCE):
        numbers = list(range(begin, min(begin + ROWS_AT_ONCE, stop)))
        with library_errors(f"{file.path}: rows {begin} to {numbers[-1]} cannot be read"):
            examples = source.__getitems__(numbers)
        for number, example in zip(numbers, examples, strict=True):
            try:
                yield document_of(nested(example), number, name=file.name, text_field=file.text_field)
            except NoDocumentError as error:
                on_damage(Damage(number, error.reason, error.detail, file.name, f"row {number}"))


def size(file: InputFile) -> int:
    """Return the bytes of all files of the split that `file` is a part of. Raises InputError if one is missing."""
    return split_bytes(builder_in(str(file.path)), file.split)


def nested(value: Any) -> Any:
    """Convert NumPy scalars in an example, a nested dict of features, to Python values."""
    if isinstance(value, dict):
        return {key: nested(item) for key, item in value.items()}
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def opened(config: TfdsPages, progress: Callable[[str], None]) -> "tfds.core.DatasetBuilder":
    """Return the builder (TFDS's object for a dataset) of config.dataset, a folder or a name such as
    ag_news_subset:1.0.0. Downloads and prepares a named dataset if it is missing. Raises UsageError if it is neither,
    InputError if tensorflow-datasets fails."""
    folder = Path(config.dataset).expanduser()
    if (folder / INFO).is_file():
        return builder_in(folder)
    if not NAME.fullmatch(config.dataset):
        raise UsageError(
            f"pages.tfds.dataset is {config.dataset!r}: neither a folder with {INFO}, nor a name with a version, such "
            "as ag_news_subset:1.0.0 or wikipedia/20230601.en:1.0.0."
        )
    with library_errors(f"{config.dataset} cannot be loaded"):
        import tensorflow_datasets as tfds
    data_dir = Path(config.data_dir or str(tfds.core.constants.DATA_DIR)).expanduser()
    name, _, version = config.dataset.partition(":")
    prepared = data_dir / name / version
    refuse_foreign_features(prepared)
    if (prepared / INFO).is_file():
        return builder_in(prepared)
    progress(f"{config.dataset} is not in {prepared}: tensorflow-datasets prepares it")
    with library_errors(f"{config.dataset} cannot be prepared"):
        builder = tfds.builder(config.dataset, data_dir=str(data_dir), file_format="array_record")
        builder.download_and_prepare()  # ty: ignore[missing-argument]
        return builder


def builder_in(folder: Path | str) -> "tfds.core.DatasetBuilder":
    with library_errors(f"{folder} has no dataset that tensorflow-datasets can read"):
        import tensorflow_datasets as tfds

        refuse_foreign_features(Path(folder))
        return tfds.builder_from_directory(folder)


def refuse_foreign_features(folder: Path) -> None:
    """Raise InputError if features.json names classes outside tensorflow-datasets: the library would import their
    modules, and so run their code."""
    path = folder / "features.json"
    if not path.is_file():
        return
    parts = [json.loads(path.read_text(encoding="utf-8"))]
    for one in parts:  # grows while it is iterated
        parts += one.values() if isinstance(one, dict) else one if isinstance(one, list) else []
        for key in ("pythonClassName", "python_class_name", "type") if isinstance(one, dict) else ():
            if "." in (name := str(one.get(key, ""))) and not name.startswith("tensorflow_datasets."):
                raise InputError(
                    f"{path} names the class {shown(name)}, whose module would be imported; only features of "
                    "tensorflow-datasets are allowed. If you trust the dataset, convert it to .jsonl or .parquet."
                )


def source_of(builder: "tfds.core.DatasetBuilder", split: str) -> "tfds.core.data_sources.BaseDataSource":
    """Return a split with random access to its rows. Raises UsageError if it does not exist, InputError if it is not
    stored as ArrayRecord."""
    known = ", ".join(sorted(builder.info.splits))
    if re.split(r"[\[+]", split)[0].strip() not in builder.info.splits:
        raise UsageError(
            f"pages.tfds.split is {split!r}, but {builder.info.full_name} has: {known or 'none'}. Give one of them."
        )
    try:
        with quiet():
            return builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise InputError(
            f"{builder.info.full_name} in {builder.data_dir} is stored as {builder.info.file_format}, which needs "
            "TensorFlow. Convert it to array_record (python -m tensorflow_datasets.scripts.convert_format --help), "
            "or prepare it in another folder (pages.tfds.data_dir)."
        ) from error
    except Exception as error:
        raise UsageError(f"pages.tfds.split is {split!r}, which cannot be read: {error}. It has: {known}.") from error


def split_bytes(builder: "tfds.core.DatasetBuilder", split: str) -> int:
    source_of(builder, split)
    files = [Path(instruction.filename) for instruction in builder.info.splits[split].file_instructions]
    for path in files:
        if not path.is_file():
            raise InputError(
                f"{path} of {builder.info.full_name} is missing. Restore it, or prepare the dataset again."
            )
    return sum(path.stat().st_size for path in dict.fromkeys(files))


@contextmanager
def quiet() -> Generator[None]:
    """In a `with` block, suppress protobuf's deprecation warnings and the log of download retries."""
    tries = logging.getLogger("urllib3")
    level = tries.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tries.setLevel(logging.ERROR)
        try:
            yield
        finally:
            tries.setLevel(level)


@contextmanager
def library_errors(what: str) -> Generator[None]:
    """In a `with` block, convert any error of tensorflow-datasets to an InputError whose message begins with `what`."""
    try:
        with quiet():
            yield
    except InputError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(
            f"{what}: {error}. Install it: make add PACKAGE='tensorflow-datasets importlib-resources', and the "
            "packages that the dataset asks for."
        ) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("requests", "urllib3"):
            raise InputError(
                f"{what}: {network_reason(error)}. Check the network, and whether a proxy is needed (HTTPS_PROXY); or "
                "prepare it elsewhere and give its folder as pages.tfds.dataset."
            ) from error
        why = f"{type(error).__name__}: {shown(str(error), quotes=False)}"
        raise InputError(f"{what}: {why}. Prepare it again, or give its texts as pages.tables.") from error

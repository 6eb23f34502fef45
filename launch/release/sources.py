"""Formats of launch.import_model. To add one, write a function and register it here."""

from collections.abc import Callable
from pathlib import Path

from lm.errors import UsageError, shown
from lm.formats.source import SourceModel
from lm.tokenizer import Tokenizer


def hugging_face(path: Path, tokenizer: Tokenizer | None) -> SourceModel:
    from lm.formats.hugging_face.reading import open_folder
    from lm.tokenizer.encoding import HUGGING_FACE
    from lm.tokenizer.files import META
    from lm.tokenizer.sentencepiece import MODEL

    if tokenizer is None and not any((path / name).is_file() for name in (META, HUGGING_FACE, MODEL)):
        raise UsageError(
            f"SOURCE {shown(str(path), quotes=False)} has a model but no tokenizer ({META}, {HUGGING_FACE} or "
            f"{MODEL}). Give the tokenizer that the model was trained with as --tokenizer."
        )
    return open_folder(path, tokenizer)


def gguf(path: Path, tokenizer: Tokenizer | None) -> SourceModel:
    from lm.formats.gguf.reading import open_gguf

    return open_gguf(path, tokenizer)


def is_gguf(path: Path) -> bool:
    """Whether a file begins with the magic number of GGUF, or has its suffix."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix == ".gguf" or file.read(4) == b"GGUF"


SOURCES: tuple[tuple[Callable[[Path], bool], Callable[[Path, Tokenizer | None], SourceModel]], ...] = (
    (lambda path: (path / "config.json").is_file(), hugging_face),
    (is_gguf, gguf),
)
"""(whether a path has the format, function that opens it). The function gets the user's tokenizer, or None for the
source's."""


def open_source(path: Path, tokenizer: Tokenizer | None) -> SourceModel:
    """Open the model at `path`, a Hugging Face folder or a GGUF file. `tokenizer` replaces the tokenizer of the source;
    with None, the source's own is used. Raises UsageError if the path has neither format, or if the tokenizer cannot be
    used. Raises InputError if the model is damaged or not supported."""
    for is_of_format, open_it in SOURCES:
        if is_of_format(path):
            return open_it(path, tokenizer)
    there = (
        "holds no config.json" if path.is_dir() else "is a file of unknown format" if path.exists() else "is not there"
    )
    raise UsageError(
        f"SOURCE {shown(str(path), quotes=False)} {there}. Give a Hugging Face folder of GPT-2 or Llama, which "
        "has config.json, model.safetensors and tokenizer.json, or a .gguf file."
    )

"""Formats of launch.import_model. To add one, add it to `open_source`."""

from pathlib import Path

from lm.errors import UsageError, shown
from lm.formats.source import SourceModel
from lm.tokenizer import Tokenizer


def open_source(path: Path, tokenizer: Tokenizer | None) -> SourceModel:
    """Open the model at `path`, a Hugging Face folder or a GGUF file. `tokenizer` replaces the tokenizer of the source;
    with None, the source's own is used. Raises UsageError if the path has neither format, or if the tokenizer cannot be
    used. Raises InputError if the model is damaged or not supported."""
    name = shown(str(path), quotes=False)
    if (path / "config.json").is_file():
        from lm.formats.hugging_face.reading import open_folder
        from lm.tokenizer.encoding import HUGGING_FACE
        from lm.tokenizer.files import META
        from lm.tokenizer.sentencepiece import MODEL

        if tokenizer is None and not any((path / file).is_file() for file in (META, HUGGING_FACE, MODEL)):
            raise UsageError(
                f"SOURCE {name} has a model but no tokenizer ({META}, {HUGGING_FACE} or {MODEL}). Give the tokenizer "
                "that the model was trained with as --tokenizer."
            )
        return open_folder(path, tokenizer)
    begin = b""
    if path.is_file():
        with path.open("rb") as file:
            begin = file.read(4)
    if begin == b"GGUF" or (path.is_file() and path.suffix == ".gguf"):
        from lm.formats.gguf.reading import open_gguf

        return open_gguf(path, tokenizer)
    there = (
        "holds no config.json" if path.is_dir() else "is a file of unknown format" if path.exists() else "is not there"
    )
    raise UsageError(
        f"SOURCE {name} {there}. Give a Hugging Face folder of GPT-2 or Llama, which has config.json, "
        "model.safetensors and tokenizer.json, or a .gguf file."
    )

"""Import a model that was trained elsewhere as a run folder: GPT-2 or Llama from a Hugging Face folder or a GGUF file.

    python -m launch.import_model downloads/SmolLM2-135M runs/smollm2

You can then sample, evaluate and export it like any other run, and continue its training in another run. Holds only one
tensor in memory at a time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from launch.stages.command import run_without_config
from lm.errors import UsageError, shown

if TYPE_CHECKING:  # these import NumPy
    from lm.formats.source import SourceModel
    from lm.tokenizer import Tokenizer


def open_source(path: Path, tokenizer: "Tokenizer | None") -> "SourceModel":
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


@dataclass(frozen=True)
class Command:
    source: tyro.conf.Positional[str]
    """Model to import: a Hugging Face folder, or a .gguf file."""
    run: tyro.conf.Positional[str]
    """Run folder to create; it must not exist."""
    tokenizer: str = ""
    """Tokenizer to use instead of the source's: a folder, a tokenizer.json, a sentencepiece .model, or a published name
    (gpt2, llama3)."""
    scan_layers: bool = False
    """Store the layers as one stack (model.scan_layers)."""


def run(command: Command) -> None:
    from launch.release.imported import with_tried_template, write_run
    from lm.tokenizer.published import load_published

    source, folder = Path(command.source).expanduser(), Path(command.run).expanduser()
    opened = with_tried_template(open_source(source, load_published(command.tokenizer) if command.tokenizer else None))
    write_run(opened, folder, source.resolve().name, command.scan_layers)
    for note in opened.notes:
        print(f"import_model: {note}")
    print(
        f"import_model: wrote the run folder {folder}\nTo try it: python -m launch.sample {folder} --prompt 'Once "
        f"upon a time'\nTo train it on your texts: python -m launch.pretrain {folder} --workdir runs/NEW "
        "--pages.tables TEXTS/"
    )


if __name__ == "__main__":
    run_without_config("launch.import_model", Command, run)

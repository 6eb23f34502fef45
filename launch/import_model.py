"""Import a model that was trained elsewhere as a run folder: GPT-2 or Llama from a Hugging Face folder or a GGUF file.

    python -m launch.import_model downloads/SmolLM2-135M runs/smollm2

You can then sample, evaluate and export it like any other run, and continue its training in another run. Holds only one
tensor in memory at a time.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from launch.stages.command import run_without_config


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
    from launch.release.sources import open_source
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

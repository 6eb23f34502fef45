"""Show how a tokenizer splits a text: colored tokens with ids in the terminal, details in an HTML page.

    python -m launch.inspect_tokenizer "Text to look at"
    python -m launch.inspect_tokenizer --file notes.txt --tokenizer cl100k --beside runs/demo --html page.html
    python -m launch.inspect_tokenizer --workdir runs/demo --html page.html

A tokenizer is a run folder, a tokenizer's folder, or a published vocabulary, by name (gpt2, cl100k, o200k, llama3) or
file. Default: that of --workdir, or else of the newest run in runs/.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from launch.stages.command import run_without_config


@dataclass(frozen=True)
class Command:
    text: tyro.conf.Positional[str] = ""
    """Text to tokenize; "-" reads standard input. Default: three example sentences."""
    file: str = ""
    """File with the text, instead of TEXT; "-" reads standard input."""
    tokenizer: str = ""
    """Tokenizer to inspect."""
    beside: str = ""
    """Second tokenizer to compare with."""
    workdir: str = ""
    """Run folder, in whose documents the uses of each token are counted."""
    documents: int = 2000
    """Number of its documents to count in, spread over its files."""
    html: str = ""
    """HTML file to write."""
    bytes: bool = False
    """Show the bytes of each token, in hexadecimal, below its id."""


def run(command: Command) -> None:
    from viewer.tokenizer.corpus import read_corpora
    from viewer.tokenizer.finding import find_tokenizer, newest_run, read_text, read_with
    from viewer.tokenizer.terminal import show
    from viewer.tokenizer.vocabulary import write_page

    given = [command.tokenizer or command.workdir or newest_run(), *filter(None, [command.beside])]
    text = read_text(command.text, command.file)
    readings = [read_with(*find_tokenizer(one), text) for one in given]
    tokenizers = [reading.tokenizer for reading in readings]
    corpora = read_corpora(command.workdir, tokenizers, command.documents) if command.workdir else []
    show(readings, command.bytes, corpora)
    if command.html:
        print(f"page: {write_page(Path(command.html).expanduser(), readings, corpora)}")


if __name__ == "__main__":
    run_without_config("launch.inspect_tokenizer", Command, run)

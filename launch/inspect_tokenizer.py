"""List the tokens of a text: id, bytes in hexadecimal, and text.

    python -m launch.inspect_tokenizer "Text to tokenize" --tokenizer runs/demo
    python -m launch.inspect_tokenizer --file notes.txt --tokenizer gpt2 --json

A tokenizer is a run folder, a tokenizer's folder, or a published vocabulary, by name (gpt2, cl100k, o200k, llama3) or
file. The page "Tokens" of launch.serve shows merges, and compares tokenizers.
"""

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from launch.stages.command import run_without_config
from launch.stages.trained import read_text
from lm.errors import UsageError, print_untrusted


@dataclass(frozen=True)
class Command:
    tokenizer: str
    """Tokenizer to inspect."""
    text: tyro.conf.Positional[str] = ""
    """Text to tokenize."""
    file: str = ""
    """File with the text, instead of TEXT; /dev/stdin reads standard input."""
    json: bool = False
    """Print one JSON object instead of a table."""


def run(command: Command) -> None:
    from lm.tokenizer.base import whole_characters
    from viewer.tokenizer.finding import find_tokenizer
    from viewer.training_data import visible

    if bool(command.text) == bool(command.file):
        raise UsageError("Give either a text to tokenize, or --file FILE.")
    name, tokenizer = find_tokenizer(command.tokenizer)
    text = whole_characters(read_text(Path(command.file)) if command.file else command.text)
    parts = [(id, tokenizer.token_bytes(id)) for id in tokenizer.encode(text)]
    size = len(text.encode())
    if command.json:
        tokens = [{"id": id, "bytes": part.hex(), "text": visible(part)} for id, part in parts]
        print(json.dumps({"tokenizer": name, "characters": len(text), "bytes": size, "tokens": tokens}))
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # do not fail if the output is not UTF-8
    for id, part in parts:
        print(f"{id:>8}  {part.hex():<24}  {visible(part)}")
    rate = f"{size / len(parts):.2f} bytes per token"
    print_untrusted(f"{name}: {len(text):,} characters, {size:,} bytes, {len(parts):,} tokens, {rate}")


if __name__ == "__main__":
    run_without_config("launch.inspect_tokenizer", Command, run)

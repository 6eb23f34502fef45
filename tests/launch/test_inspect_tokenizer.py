"""launch.inspect_tokenizer for users: its table and its JSON, and each error."""

import io
import json
import os
import re
import sys
import unicodedata
from pathlib import Path

import pytest

from launch.inspect_tokenizer import Command, run
from lm.config import TokenizerConfig
from lm.tokenizer import Tokenizer, load, save, train_bpe, train_tokenizer
from tests.commands import run_command
from tests.launch.run_folder import REPOSITORY
from viewer.tokenizer.samples import KINDS, LANGUAGES
from viewer.training_data import visible

HOSTILE = '</script><script>x()</script><img src=x onerror="x()"> {{ 7 * 7 }} &lt; \x1b[31mred\x07 \u202eback \x9b2J'


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """A folder with two tokenizers, a run without one, a damaged one, and files of text."""
    room = tmp_path_factory.mktemp("room")
    texts = [*LANGUAGES.values(), *KINDS.values()]
    letters = TokenizerConfig(len({"\n", *"".join(KINDS.values())}), "cl100k", 10**6, algorithm="characters")
    save(train_bpe(texts, TokenizerConfig(300, "cl100k", 10**6)), room / "runs/demo/tokenizer")
    save(train_tokenizer([*KINDS.values()], letters), room / "characters")
    (room / "runs/begun/documents").mkdir(parents=True)
    save(load(room / "characters"), room / "damaged/tokenizer")
    (room / "damaged/tokenizer/meta.json").write_text("{")
    (room / "thai.txt").write_text(LANGUAGES["Thai"])
    (room / "hostile.txt").write_text(HOSTILE)
    (room / "latin.txt").write_bytes("Mühle".encode("latin-1"))
    return room


def inspect(room: Path, *arguments: str, code: int = 0, given: bytes = b"") -> str:
    """Standard output of the script, called in `room`, or its message if it fails as expected."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = run_command("launch.inspect_tokenizer", *arguments, cwd=room, stdin=given, environment=environment)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and (not done.stderr or code)
    return done.stderr if code else done.stdout


def table(name: str, text: str, tokenizer: Tokenizer) -> list[list[str]]:
    """Words of each line that the script shall print for a text, which has as many bytes as its tokens."""
    parts = [(id, tokenizer.token_bytes(id)) for id in tokenizer.encode(text)]
    size = len(text.encode())
    assert b"".join(part for _, part in parts) == text.encode()
    told = f"{name}: {len(text)} characters, {size} bytes, {len(parts)} tokens, {size / len(parts):.2f} bytes per token"
    return [*([str(id), part.hex(), visible(part)] for id, part in parts), told.split(" ")]


@pytest.mark.parametrize("name", ["runs/demo", "runs/demo/tokenizer", "characters"])
def test_each_token_is_listed_as_a_table_and_as_json(room, name):
    tokenizer = load(room / ("characters" if name == "characters" else "runs/demo/tokenizer"))
    short, text = ("characters" if name == "characters" else "demo"), "The mill:\n\tgrinds 42 sacks."
    out = inspect(room, text, "--tokenizer", name)
    assert [line.split() for line in out.splitlines()] == table(short, text, tokenizer)
    found = json.loads(inspect(room, text, "--tokenizer", name, "--json"))
    rows = [[str(one["id"]), one["bytes"], one["text"]] for one in found["tokens"]]
    assert rows == table(short, text, tokenizer)[:-1]
    assert (found["tokenizer"], found["characters"], found["bytes"]) == (short, len(text), len(text))


@pytest.mark.parametrize("file", ["thai.txt", "/dev/stdin"])
def test_texts_come_from_files_and_standard_input(room, file):
    out = inspect(room, "--file", file, "--tokenizer", "runs/demo", given=LANGUAGES["Thai"].encode())
    ids = load(room / "runs/demo/tokenizer").encode(LANGUAGES["Thai"])
    assert [int(line.split()[0]) for line in out.splitlines()[:-1]] == ids


def test_an_output_that_is_not_utf_8_gets_escapes(room, monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii"))
    run(Command(str(room / "runs/demo"), "the mill"))
    sys.stdout.flush()
    assert b"\\u2423" in out.getvalue()  # the symbol of a space


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("a text",), 2, "--tokenizer"),
        (("a text", "--tokenizer", "runs/nowhere"), 2, "no tokenizer 'runs/nowhere'.*: runs/demo.*gpt2, cl100k"),
        (("a text", "--tokenizer", "runs/begun"), 1, "run runs/begun has no tokenizer yet.*launch.train_tokenizer"),
        (("a text", "--tokenizer", "runs"), 2, "runs cannot be loaded: .*meta.json"),
        (("a text", "--tokenizer", "damaged"), 1, "is damaged"),
        (("a text", "--tokenizer", "no\x1b[31mwhere\x07"), 2, "no tokenizer .*where"),
        (("Mühle", "--tokenizer", "characters"), 1, "'ü' \\(U\\+00FC\\) is not one of the"),
        (("--file", "nothing.txt", "--tokenizer", "runs/demo"), 1, "nothing.txt cannot be read: No such file"),
        (("--file", "runs", "--tokenizer", "runs/demo"), 1, "runs cannot be read: Is a directory"),
        (("--file", "latin.txt", "--tokenizer", "runs/demo"), 1, "latin.txt is not UTF-8 text: byte 1 is 0xfc"),
        (("--file", "/dev/stdin", "--tokenizer", "runs/demo"), 1, "/dev/stdin is empty"),
        (("--file", "no\x1b[31mwhere", "--tokenizer", "runs/demo"), 1, "where cannot be read"),
        (("a text", "--file", "thai.txt", "--tokenizer", "runs/demo"), 2, "Give either a text to tokenize, or --file"),
        (("--tokenizer", "runs/demo"), 2, "Give either a text to tokenize, or --file"),
    ],
)
def test_user_errors_are_reported(room, arguments, code, message):
    error = inspect(room, *arguments, code=code)
    assert re.search(message, error, re.DOTALL) and not {"\x1b", "\x07"} & set(error)


def test_control_characters_of_the_text_do_not_reach_the_terminal(room):
    out = inspect(room, "--file", "hostile.txt", "--tokenizer", "runs/demo")
    assert not {c for c in out if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs")}
    assert "\\u001b" in out and "\\xc2\n" in out and "\\x9b\n" in out  # the last two are bytes of one character


def test_an_argument_that_is_not_utf_8_is_counted_as_encoded(room):
    assert "1 characters, 3 bytes" in inspect(room, os.fsdecode(b"\xff"), "--tokenizer", "runs/demo")

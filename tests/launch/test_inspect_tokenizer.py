"""launch.inspect_tokenizer for users: each kind of input, each error, and the contents of the page."""

import json
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lm.config import TokenizerConfig
from lm.tokenizer import Tokenizer, load, save, train_bpe, train_tokenizer
from tests.commands import run_command
from tests.launch.run_folder import RECORDED, REPOSITORY, recorded_in
from viewer.answers import key_of
from viewer.tokenizer import terminal
from viewer.tokenizer.corpus import read_corpus, sampled
from viewer.tokenizer.finding import DEFAULT_TEXT, read_with
from viewer.tokenizer.look import count_usage
from viewer.tokenizer.samples import KINDS, LANGUAGES
from viewer.tokenizer.vocabulary import MOST_CHARACTERS, tokens_html, vocabulary

HOSTILE = '</script><script>x()</script><img src=x onerror="x()"> {{ 7 * 7 }} &lt; \x1b[31mred\x07 \u202eback \x9b2J'
DOCUMENTS = [("en", text) for text in KINDS.values()] + [("de", LANGUAGES["German"]), ("ru", LANGUAGES["Russian"])]


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """A folder with two runs: runs/old without documents, and runs/new, whose tokenizer is the newest."""
    room = tmp_path_factory.mktemp("room")
    texts = [*LANGUAGES.values(), *KINDS.values()]
    for name, symbols, seconds in (("old", 300, 1000), ("new", 700, 2000)):
        save(train_bpe(texts, TokenizerConfig(symbols, "cl100k", 10**6)), room / f"runs/{name}/tokenizer")
        os.utime(room / f"runs/{name}/tokenizer/meta.json", (seconds, seconds))
    (room / "runs/new/documents").mkdir()
    for file in range(2):
        rows = [{"language": language, "text": text} for language, text in DOCUMENTS[file::2]]
        pq.write_table(pa.Table.from_pylist(rows), room / f"runs/new/documents/{file:05d}.parquet")
    (room / "runs/begun/documents").mkdir(parents=True)
    return room


def tokenizer_of(room: Path, name: str) -> Tokenizer:
    return load(room / "runs" / name / "tokenizer")


PLAIN: dict[str, str] = {}
COLOUR = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}


def inspect(
    room: Path, *arguments: str, code: int = 0, given: bytes = b"", environment: Mapping[str, str] = PLAIN
) -> tuple[str, str]:
    """(standard output, standard error) of the script, called in `room`."""
    ours = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment = {**ours, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "80", **environment}
    done = run_command("launch.inspect_tokenizer", *arguments, cwd=room, stdin=given, environment=environment)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def figures(name: str, text: str, tokenizer: Tokenizer) -> str:
    ids, size = tokenizer.encode(text), len(text.encode())
    rate = f"{size / len(ids):.2f} bytes per token"
    return f"{name}: {len(text):,} characters, {size:,} bytes, {len(ids):,} tokens, {rate}"


def ids_in(lines: list[str]) -> list[int]:
    return [int(word) for line in lines for word in line.split()]


def test_text_is_split_by_the_tokenizer_of_the_newest_run(room):
    text = "The old mill:\n\tgrinds 42 sacks über Nacht. 🙂"
    out, error = inspect(room, text)
    tokenizer = tokenizer_of(room, "new")
    *lines, told, end = out.split("\n")
    assert (told, end, error) == (figures("new", text, tokenizer), "", "")
    assert ids_in(lines[1::3]) == tokenizer.encode(text)
    assert "".join("".join(lines[::3]).split()) == "The␣old␣mill:⏎⇥grinds␣42␣sacks␣über␣Nacht.␣\\xf0\\x9f\\x99\\x82"
    assert not any(lines[2::3])


def test_bytes_below_the_ids(room):
    out, _ = inspect(room, "A mill.", "--bytes", "--tokenizer", "runs/old/tokenizer")
    assert bytes.fromhex(out.split("\n")[2]) == b"A mill."
    assert out.rstrip().split("\n")[-1] == figures("old", "A mill.", tokenizer_of(room, "old"))


def test_without_a_text_the_sample_is_shown(room):
    assert figures("new", DEFAULT_TEXT, tokenizer_of(room, "new")) in inspect(room)[0]


@pytest.mark.parametrize("how", [("-",), ("--file", "-"), ("--file", "mill.txt")])
def test_files_and_standard_input(room, how):
    (room / "mill.txt").write_text(LANGUAGES["Thai"], encoding="utf-8")
    out, _ = inspect(room, *how, given=LANGUAGES["Thai"].encode())
    assert figures("new", LANGUAGES["Thai"], tokenizer_of(room, "new")) in out


def test_an_empty_input_has_no_tokens(room):
    out, _ = inspect(room, "-", "--html", "empty.html")
    assert "0 characters, 0 bytes, 0 tokens" in out
    assert recorded_in(room / "empty.html")["model{}"]["prompt"] == ""


def test_bytes_that_are_not_text_are_counted(room):
    out, error = inspect(room, "-", given=b"mill \xff\xfe\n")
    assert error == "standard input: 2 of 8 bytes are not UTF-8 and are read as U+FFFD.\n"
    assert figures("new", "mill \ufffd\ufffd\n", tokenizer_of(room, "new")) in out


def test_two_tokenizers(room):
    out, _ = inspect(room, "The mill by the river", "--tokenizer", "runs/old", "--beside", "runs/new/tokenizer")
    for name in ("old", "new"):
        assert figures(name, "The mill by the river", tokenizer_of(room, name)) in out


def test_usage_over_the_documents_of_a_run(room):
    out, _ = inspect(room, "--workdir", "runs/new")
    usage = count_usage([text for _, text in DOCUMENTS], tokenizer_of(room, "new"))
    assert (
        f"8 of 8 documents: {usage.text_bytes:,} bytes, {usage.tokens:,} tokens, {usage.bytes_per_token:.2f} bytes"
        in out
    )
    assert re.search(r"^  en: [\d.]+ bytes per token in 6 documents\n  de: ", out, re.MULTILINE)
    unused = int((usage.counts[:-1] == 0).sum())
    assert f"never used: {unused} of 700 symbols" in out
    assert "2 of 8 documents" in inspect(room, "--workdir", "runs/new", "--documents", "2")[0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--tokenizer", "runs/nowhere"), 2, "no tokenizer 'runs/nowhere'.*runs/new, runs/old.*gpt2, cl100k"),
        (("--tokenizer", "runs/begun"), 1, "run runs/begun has no tokenizer yet.*launch.train_tokenizer"),
        (("--tokenizer", "runs"), 2, "runs cannot be loaded: .*meta.json"),
        (("--workdir", "runs/old"), 1, "no documents in runs/old/documents.*launch.prepare_documents"),
        (("--workdir", "runs/new", "--documents", "0"), 2, "--documents is 0; it must be at least 1"),
        (("--file", "nothing.txt"), 1, "nothing.txt cannot be read: No such file.*path of a text file"),
        (("--file", "runs"), 1, "runs cannot be read: Is a directory"),
        (("a text", "--file", "mill.txt"), 2, "Both a text \\('a text'\\) and --file 'mill.txt' are given"),
        (("a text", "--html", "runs"), 1, "--html runs cannot be written: Is a directory"),
        (("--beside", "runs/nowhere"), 2, "no tokenizer 'runs/nowhere'"),
    ],
)
def test_user_errors_are_reported(room, arguments, code, message):
    _, error = inspect(room, *arguments, code=code)
    assert re.fullmatch(f"launch.inspect_tokenizer: .*{message}.*\n", error, re.DOTALL), error


def test_no_run_at_all(tmp_path):
    _, error = inspect(tmp_path, "A text", code=1)
    assert re.search("no run with a tokenizer in .*--tokenizer.*make demo", error)


def test_a_damaged_tokenizer(room, tmp_path):
    save(tokenizer_of(room, "old"), tmp_path / "tokenizer")
    (tmp_path / "tokenizer/meta.json").write_text("{")
    _, error = inspect(room, "--tokenizer", str(tmp_path), code=1)
    assert "is damaged" in error


@pytest.mark.parametrize("environment", [PLAIN, COLOUR])
def test_control_characters_of_the_text_do_not_reach_the_terminal(room, environment):
    out, _ = inspect(room, "-", given=HOSTILE.encode(), environment=environment)
    ours = re.sub(r"\x1b\[[\d;]*m", "", out) if environment else out
    assert not {c for c in ours if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs")}
    assert "\\u001b" in ours and "\\xc2 \\x9b" in ours  # the second is split into its bytes
    for code in re.findall(r"\x1b\[([\d;]*)m", out):  # the text requested red, which is 31
        assert code != "31"


def test_control_characters_of_an_argument_do_not_reach_the_terminal_in_a_message(room):
    for code, arguments in ((2, ("x", "--tokenizer", "no\x1b[31mwhere\x07")), (1, ("--file", "no\x1b[31mwhere"))):
        _, error = inspect(room, *arguments, code=code)
        assert "where" in error and not {"\x1b", "\x07"} & set(error)


def test_a_terminal_without_a_width_is_no_error(room):
    assert "2 characters" in inspect(room, "hi", environment={"COLUMNS": "0"})[0]


def test_an_argument_that_is_not_utf_8_is_counted_as_encoded(room):
    out, _ = inspect(room, os.fsdecode(b"\xff"), "--tokenizer", "runs/old")
    assert "1 characters, 3 bytes" in out


def test_colors_are_only_used_in_a_terminal_and_follow_the_user_setting(room):
    assert "\x1b[" in inspect(room, "The mill", environment=COLOUR)[0]
    assert "\x1b[" not in inspect(room, "The mill")[0]
    assert not re.search(r"\x1b\[[\d;]*[34]8;", inspect(room, "The mill", environment=COLOUR | {"NO_COLOR": "1"})[0])


def test_long_texts_and_wide_characters_stay_within_the_terminal(room):
    from rich.cells import cell_len

    text = LANGUAGES["Chinese"] * 30 + " " * 500 + "=" * 3000
    tokenizer = tokenizer_of(room, "new")
    lines = list(terminal.flowed(read_with("new", tokenizer, text).pieces, True, 80))
    assert max(cell_len(line.plain) for line in lines) <= 80
    assert ids_in([line.plain for line in lines[1::4]]) == tokenizer.encode(text)
    out, _ = inspect(room, "-", given=text.encode())
    assert f"the first 500 of {len(tokenizer.encode(text)):,} tokens" in out


@pytest.fixture(scope="module")
def page(room) -> dict:
    """The data of the page of two tokenizers."""
    out, _ = inspect(
        room, "-", "--workdir", "runs/new", "--beside", "runs/old", "--html", "new/page.html", given=HOSTILE.encode()
    )
    assert out.endswith("page: new/page.html\n")
    html = (room / "new/page.html").read_text(encoding="utf-8")
    assert not {c for c in html if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs")}
    return recorded_in(room / "new/page.html")


def test_the_page_holds_the_text_and_both_vocabularies(page, room):
    assert page["pages"] == ["tokens"]
    assert page["model{}"] == {"name": "new and old", "prompt": HOSTILE, "beside": "old"}
    for key, name in (("vocabulary{}", "new"), (key_of("vocabulary", {"tokenizer": "old"}), "old")):
        assert page[key] == vocabulary(name, tokenizer_of(room, name)) | {"others": ["old"]}


def test_the_page_compares_languages_kinds_and_documents(page, room):
    found, tokenizers = page["comparison{}"], [tokenizer_of(room, name) for name in ("new", "old")]
    for samples, name in ((LANGUAGES, "languages"), (KINDS, "kinds")):
        assert found[name] == [
            {"name": one, "bytes": len(text.encode()), "tokens": [len(t.encode(text)) for t in tokenizers]}
            for one, text in samples.items()
        ]
    for corpus, tokenizer in zip(found["corpora"], tokenizers, strict=True):
        usage = count_usage([text for _, text in DOCUMENTS], tokenizer)
        assert (corpus["read"], corpus["documents"], corpus["tokens"]) == (8, 8, usage.tokens)
        assert corpus["unused"] == int((usage.counts[:-1] == 0).sum()) >= len(corpus["unused_examples"])
        assert all(usage.counts[id] == count > 0 for id, count in corpus["rarest"])
        assert not any(usage.counts[id] for id in corpus["unused_examples"])


def test_vocabularies_that_are_not_merged(room):
    texts = [*KINDS.values()]
    config = TokenizerConfig(len({"\n", *"".join(texts)}), "cl100k", 10**6, algorithm="characters")
    save(train_tokenizer(texts, config), room / "characters")
    out, _ = inspect(room, KINDS["prose"], "--tokenizer", "characters", "--beside", "runs/old", "--html", "page.html")
    assert figures("characters", KINDS["prose"], load(room / "characters")) in out
    languages = {one["name"]: one["tokens"] for one in recorded_in(room / "page.html")["comparison{}"]["languages"]}
    assert languages["Thai"][0] == 0 < languages["Thai"][1]
    _, error = inspect(room, "Mühle", "--tokenizer", "characters", code=1)
    assert "'ü' (U+00FC) is not one of the" in error


def test_ids_of_a_tokenizer_that_the_page_cannot_run_are_recorded(room):
    """For the text as JavaScript splits it: by UTF-16 units, with U+FFFD for half of a pair."""
    config = TokenizerConfig(700, "gpt2", 10**6, algorithm="sentencepiece_bpe")
    tokenizer, text = train_tokenizer([*LANGUAGES.values()], config), "The mill 🙂 " * 2500
    answers = tokens_html([read_with("pieces", tokenizer, text)], [])
    (key,) = [key for key in json.loads(RECORDED.findall(answers)[0]) if key.startswith("encode{")]
    cut = text.encode("utf-16-le")[: 2 * MOST_CHARACTERS].decode("utf-16-le", "replace")
    assert json.loads(key.removeprefix("encode")) == {"text": cut} and len(cut) < MOST_CHARACTERS


@pytest.mark.parametrize(("wanted", "read"), [(1, 1), (3, 3), (7, 7), (8, 8), (100, 8)])
def test_documents_are_sampled_from_all_files(room, wanted, read):
    from data_prep.shards.tokenize import document_files

    files = document_files(room / "runs/new/documents")
    rows = sampled(files, wanted)
    assert len(rows) == len({text for text, _ in rows}) == read
    corpus = read_corpus(room / "runs/new/documents", tokenizer_of(room, "new"), wanted, 100)
    assert (corpus.usage.texts, corpus.documents) == (read, 8)
    assert corpus.usage.text_bytes <= 200 * read
    assert sum(documents for documents, _ in corpus.by_language.values()) == read

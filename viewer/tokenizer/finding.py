"""Find the text and the tokenizer for launch.inspect_tokenizer."""

import sys
from dataclasses import dataclass
from pathlib import Path

from lm.errors import InputError, UsageError
from lm.run_paths import RunPaths
from lm.tokenizer import Tokenizer, load
from lm.tokenizer.base import whole_characters
from lm.tokenizer.files import META
from lm.tokenizer.published import PUBLISHED, load_published
from viewer.tokenizer.look import Piece, cut
from viewer.tokenizer.samples import LANGUAGES

FOLDER = RunPaths.tokenizer
RUNS = Path("runs")
DEFAULT_TEXT = next(iter(LANGUAGES.values()))


@dataclass(frozen=True)
class Reading:
    """A text, split into tokens by one tokenizer."""

    name: str
    """Display name of the tokenizer: its run, its folder or its published name."""
    tokenizer: Tokenizer
    text: str
    pieces: list[Piece]

    @property
    def text_bytes(self) -> int:
        return len(whole_characters(self.text).encode())

    @property
    def bytes_per_token(self) -> float:
        return self.text_bytes / max(1, len(self.pieces))


def read_with(name: str, tokenizer: Tokenizer, text: str) -> Reading:
    return Reading(name, tokenizer, text, cut(text, tokenizer))


def find_tokenizer(given: str) -> tuple[str, Tokenizer]:
    """Return (name, tokenizer) for a run folder, a tokenizer's folder or file, or a published name such as "gpt2".
    Raises InputError or UsageError if there is none, or if it is damaged."""
    path = Path(given).expanduser()
    if (path / FOLDER / META).is_file():
        return path.resolve().name, load(path / FOLDER)
    if RunPaths(path).stages.is_dir() or RunPaths(path).documents.is_dir():
        raise InputError(f"The run {path} has no tokenizer yet. Run: python -m launch.train_tokenizer CONFIG.py")
    if given not in PUBLISHED and not path.exists():
        runs = ", ".join(sorted(str(path.parents[1]) for path in RUNS.glob(f"*/{FOLDER}/{META}"))) or "there is none"
        raise UsageError(
            f"There is no tokenizer {given!r}. Give a run folder (in {RUNS.resolve()}: {runs}), a tokenizer's folder "
            f"or file, or a published vocabulary: {', '.join(PUBLISHED)}."
        )
    return name_of(given), load_published(given)


def name_of(given: str) -> str:
    """Return the display name of a tokenizer: the published name, or the name of its file or folder without suffix;
    "demo" for runs/demo/tokenizer."""
    if given in PUBLISHED:
        return given
    path = Path(given).expanduser().resolve()
    name = path.stem if path.is_file() else path.name
    return path.parent.name if name == FOLDER else name


def newest_run() -> str:
    """Return the folder in runs/ that has the newest tokenizer. Raises InputError if there is none."""
    found = [path.parents[1] for path in RUNS.glob(f"*/{FOLDER}/{META}")]
    if not found:
        raise InputError(
            f"There is no run with a tokenizer in {RUNS.resolve()}. Give --tokenizer: a run folder, a tokenizer's "
            "folder, or a published vocabulary such as gpt2 or cl100k; or run: make demo"
        )
    return str(max(found, key=lambda run: ((run / FOLDER / META).stat().st_mtime_ns, run)))


def read_text(text: str, file: str) -> str:
    """Return the text to inspect: `text`, or the contents of `file`, or standard input if one of these is "-"; by
    default DEFAULT_TEXT. Bytes that are not UTF-8 become U+FFFD, with a message on standard error. Raises UsageError if
    both `text` and `file` are given, InputError if the file cannot be read."""
    if text and file:
        raise UsageError(f"Both a text ({text[:40]!r}) and --file {file!r} are given. Give one of them.")
    if not (text == "-" or file):
        return text or DEFAULT_TEXT
    name = "standard input" if "-" in (text, file) else file
    try:
        data = sys.stdin.buffer.read() if name == "standard input" else Path(file).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}. Give the path of a text file.") from None
    decoded = data.decode("utf-8", "surrogateescape")
    if broken := sum("\udc80" <= c <= "\udcff" for c in decoded):
        print(f"{name}: {broken:,} of {len(data):,} bytes are not UTF-8 and are read as U+FFFD.", file=sys.stderr)
    return data.decode("utf-8", "replace")

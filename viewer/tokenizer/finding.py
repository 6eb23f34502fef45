"""Find a tokenizer by run, folder, file or published name."""

from pathlib import Path

from lm.errors import InputError, UsageError
from lm.run_paths import RunPaths
from lm.tokenizer import Tokenizer, load
from lm.tokenizer.files import META
from lm.tokenizer.published import PUBLISHED, load_published

FOLDER = RunPaths.tokenizer
RUNS = Path("runs")


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

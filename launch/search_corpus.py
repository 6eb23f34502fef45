"""Look up texts in the token shards that a run was trained on, using the index of launch.index_corpus.

    python -m launch.search_corpus runs/demo --text "capital and largest city"
    python -m launch.search_corpus runs/demo --file questions.jsonl --field question --ngram 13

The first command prints how often and where a text occurs. The second prints, for each line of a file, how many of its
token n-grams occur: a test for contamination by benchmark questions. Writes no files (docs/corpus_index.md).
"""

from dataclasses import dataclass
from pathlib import Path

from configs.experiment import Experiment
from launch.index_corpus import INDEXED
from launch.stages.command import run_command
from lm.errors import UsageError


@dataclass(frozen=True)
class Options:
    text: str = ""
    """Text to look up literally; it must consist of whole words."""
    file: str = ""
    """JSONL file; the n-grams of each line are looked up. Any other file is one text."""
    field: str = "text"
    """Field of a line that contains its text."""
    ngram: int | None = None
    """Tokens of an n-gram; default: 13, or 64 if tokens are characters. A shorter text is looked up as a whole."""
    shown: int = 5
    """Number of documents to print."""


def on_the_side(experiment: Experiment, workdir: Path, options: Options) -> bool:
    from lm.corpus_index.lookups import overlaps, search_report

    if bool(options.text) == bool(options.file) or options.ngram == 0 or min(options.ngram or 0, options.shown) < 0:
        raise UsageError(
            f"--text is {options.text!r}, --file {options.file!r}, --ngram {options.ngram}, --shown {options.shown}. "
            "Give either a text or a file, an n-gram of at least 1 token, and at least 0 documents to show."
        )
    if options.text:
        print(search_report(workdir, options.text, options.shown, experiment.train))
        return True
    for line in overlaps(workdir, Path(options.file).expanduser(), options.field, options.ngram, experiment.train):
        print(line, flush=True)
    return True


if __name__ == "__main__":
    run_command("launch.search_corpus", None, INDEXED, options=Options, on_the_side=on_the_side)

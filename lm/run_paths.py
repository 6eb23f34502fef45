"""Paths in a run folder: the only place that spells these names. configs/experiment/run_folder.py reads run
folders.

`RunPaths(folder).tokens` is a path, `RunPaths.tokens` the name in the folder, which stages list as their outputs.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import overload


@dataclass(frozen=True)
class Part:
    """A file or folder of every run, by its name."""

    name: str

    @overload
    def __get__(self, run: None, owner: type) -> str: ...
    @overload
    def __get__(self, run: "RunPaths", owner: type) -> Path: ...
    def __get__(self, run: "RunPaths | None", owner: type) -> str | Path:
        return self.name if run is None else run.root / self.name


@dataclass(frozen=True, init=False)
class RunPaths:
    """Paths of the run in the folder `root`, whether they exist or not. docs/contracts.md ("The run folder") describes
    them."""

    root: Path

    def __init__(self, root: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "root", Path(root) if isinstance(root, str) else root)  # or a Url, of an array job

    config_json = Part("config.json")
    pages = Part("pages")
    pages_manifest = Part("pages/manifest.json")
    texts = Part("texts")
    parts = Part("parts")
    sampling = Part("sampling")
    documents = Part("documents")
    dropped = Part("dropped")
    funnel = Part("funnel.json")
    dedup_index = Part("dedup_index")
    tokenizer = Part("tokenizer")
    tokens = Part("tokens")
    tokens_parts = Part("tokens/parts")
    evaluation = Part("evaluation.json")
    lm_eval = Part("lm_eval")
    report = Part("report")
    report_page = Part("report/index.html")
    summary = Part("summary.json")
    corpus_index = Part("corpus_index")
    refilter = Part("refilter")
    quality_classifier = Part("quality_classifier")
    scaling = Part("scaling")
    scaling_json = Part("scaling/scaling.json")
    scaling_page = Part("scaling/index.html")

    # Training
    checkpoints = Part("checkpoints")
    damaged_checkpoints = Part("checkpoints.damaged")
    snapshots = Part("snapshots")
    metrics = Part("metrics.jsonl")
    tensorboard = Part("tensorboard")
    wandb = Part("wandb")
    samples = Part("samples")
    final_samples = Part("samples/final.json")
    skipped_steps = Part("skipped_steps.jsonl")
    verified_shards = Part("verified_shards.json")
    goodput = Part("goodput.json")
    hangs = Part("hangs")
    profile = Part("profile")

    imported = Part("imported")

    # The books
    stages = Part("stages")
    units = Part("units")
    quarantine = Part("quarantine")
    scratch = Part("scratch")
    lock = Part(".lock")
    replaced = Part("replaced")

    def marker(self, stage: str) -> Path:
        """Marker of a finished stage."""
        return self.stages / f"{stage}.json"

    def begun(self, stage: str) -> Path:
        """Record of an unfinished stage."""
        return self.stages / f"{stage}.begun"

    def written(self, stage: str) -> Path:
        """The list of files that the stage wrote; it outlives the marker."""
        return self.stages / f"{stage}.files"

    def seen(self, stage: str) -> Path:
        """Hints that identify the input files of a finished stage (launch/run_folder/user_inputs.py)."""
        return self.stages / f"{stage}.seen"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / str(step)

    def snapshot(self, step: int) -> Path:
        """Snapshot of the parameters at that step."""
        return self.snapshots / str(step)

    def sample(self, step: int) -> Path:
        """A sample taken during training."""
        return self.samples / f"step-{step:08d}.json"

    def harness_results(self, step: int) -> Path:
        """Results of lm-eval for the checkpoint of that step."""
        return self.lm_eval / f"step-{step:08d}.json"

    def heartbeat(self, process: int = 0) -> Path:
        """Heartbeat of a training process."""
        return self.root / f"heartbeat{f'-{process}' if process else ''}.json"

    def supervisor(self, process: int = 0) -> Path:
        """Log of the supervisor of that process."""
        return self.root / f"supervisor{f'-{process}' if process else ''}.jsonl"


UNFINISHED = ".unfinished"
"""`checkpoints/<step>.unfinished` is there while that checkpoint is written or deleted; so for snapshots."""
HEARTBEATS, SUPERVISORS = "heartbeat*.json", "supervisor*.jsonl"
TRAINING_LOGS = (
    RunPaths.metrics, RunPaths.tensorboard, RunPaths.wandb, RunPaths.samples, RunPaths.skipped_steps,
    RunPaths.verified_shards, RunPaths.goodput,
    HEARTBEATS, RunPaths.hangs, RunPaths.profile, RunPaths.damaged_checkpoints,
)  # fmt: skip
"""Everything that training writes besides checkpoints, as shell patterns."""

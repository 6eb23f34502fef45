"""Names of the files and folders of a run, only defined here. configs/experiment/run_folder.py reads run folders.

`RunPaths(folder).tokens` is a path; `RunPaths.tokens` is its name in the run folder, as stages list their outputs.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import overload


@dataclass(frozen=True)
class Part:
    """Descriptor of a file or folder in a run folder: its name on the class RunPaths, its path on an instance."""

    name: str

    @overload
    def __get__(self, run: None, owner: type) -> str: ...
    @overload
    def __get__(self, run: "RunPaths", owner: type) -> Path: ...
    def __get__(self, run: "RunPaths | None", owner: type) -> str | Path:
        return self.name if run is None else run.root / self.name


@dataclass(frozen=True, init=False)
class RunPaths:
    """Paths in the run folder `root`, whether they exist or not; see docs/contracts.md ("The run folder")."""

    root: Path

    def __init__(self, root: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "root", Path(root) if isinstance(root, str) else root)  # a Url in array jobs

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
    evaluation = Part("evaluation.json")
    lm_eval = Part("lm_eval")
    report = Part("report")
    report_page = Part("report/index.html")
    summary = Part("summary.json")
    corpus_index = Part("corpus_index")
    refilter = Part("refilter")
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
    chat_samples = Part("samples/chat.jsonl")
    skipped_steps = Part("skipped_steps.jsonl")
    verified_shards = Part("verified_shards.json")
    goodput = Part("goodput.json")
    hangs = Part("hangs")
    profile = Part("profile")

    imported = Part("imported")

    # Finetuning
    conversations = Part("conversations")
    start = Part("start")

    # Records of stages and units of work
    stages = Part("stages")
    units = Part("units")
    quarantine = Part("quarantine")
    scratch = Part("scratch")
    lock = Part(".lock")
    replaced = Part("replaced")

    def marker(self, stage: str) -> Path:
        """Marker of a finished stage: a JSON file with its inputs and outputs."""
        return self.stages / f"{stage}.json"

    def begun(self, stage: str) -> Path:
        """Record of a stage that has begun and not finished."""
        return self.stages / f"{stage}.begun"

    def written(self, stage: str) -> Path:
        """List of the files that a stage wrote. It is kept when the marker is deleted."""
        return self.stages / f"{stage}.files"

    def seen(self, stage: str) -> Path:
        """Modification times or ETags of a stage's input files, which show whether a file was replaced."""
        return self.stages / f"{stage}.seen"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / str(step)

    def snapshot(self, step: int) -> Path:
        """Snapshot of the parameters at a step."""
        return self.snapshots / str(step)

    def sample(self, step: int) -> Path:
        """Text sampled during training at a step."""
        return self.samples / f"step-{step:08d}.json"

    def harness_results(self, step: int) -> Path:
        """Results of lm-eval for the checkpoint at a step."""
        return self.lm_eval / f"step-{step:08d}.json"

    def heartbeat(self, process: int = 0) -> Path:
        """Heartbeat file of a training process: its last step, and when it was finished."""
        return self.root / f"heartbeat{f'-{process}' if process else ''}.json"

    def supervisor(self, process: int = 0) -> Path:
        """Log of the supervisor that restarts a training process."""
        return self.root / f"supervisor{f'-{process}' if process else ''}.jsonl"


UNFINISHED = ".unfinished"
"""Suffix of a file that exists while a checkpoint or snapshot is written or deleted: checkpoints/STEP.unfinished."""
HEARTBEATS, SUPERVISORS = "heartbeat*.json", "supervisor*.jsonl"
TRAINING_LOGS = (
    RunPaths.metrics, RunPaths.tensorboard, RunPaths.wandb, RunPaths.samples, RunPaths.skipped_steps,
    RunPaths.verified_shards, RunPaths.goodput,
    HEARTBEATS, RunPaths.hangs, RunPaths.profile, RunPaths.damaged_checkpoints,
)  # fmt: skip
"""Shell patterns of all files that training writes besides checkpoints."""

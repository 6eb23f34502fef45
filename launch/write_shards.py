"""Tokenize the documents into shards: records of fixed length, split into train and val, with a manifest."""

from pathlib import Path

from configs.experiment import Experiment
from launch import prepare_documents, train_tokenizer
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.run_paths import RunPaths


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """Return {name: hash} of the indices of held-out documents in other runs, shards.held_out_index."""
    from data_prep.shards.encode import identity_of_index
    from lm.storage import place_of

    return {f"keys of {name}": identity_of_index(place_of(name)) for name in experiment.shards.held_out_index}


def make(experiment: Experiment, run: Path) -> None:
    from data_prep.shards.write import write_shards
    from lm.tokenizer import load

    paths = RunPaths(run)
    manifest = write_shards(paths.documents, load(paths.tokenizer), paths.tokens, experiment.shards, experiment.engine)
    for name, split in manifest.splits.items():
        print(
            f"shards: {name}: {split.documents:,} documents, {split.tokens:,} tokens "
            f"({split.text_bytes / split.tokens:.2f} bytes per token), {split.records:,} records "
            f"in {len(split.shards)} shards"
        )
    if manifest.withheld_documents:
        print(
            f"shards: {manifest.withheld_documents:,} training documents removed, because they are near-duplicates of "
            "held-out ones"
        )


STAGE = Stage(
    name="shards",
    script="launch.write_shards",
    after=(prepare_documents.STAGE, train_tokenizer.STAGE),
    settings=lambda experiment: {"shards": experiment.shards},
    external_inputs=external_inputs,
    make=make,
    direct=True,
    intermediate=tuple(f"{RunPaths.tokens}/{name}" for name in (RunPaths.parts, RunPaths.units, RunPaths.scratch)),
    outputs=(RunPaths.tokens,),
    libraries=("python", "array-record", "numpy", "pyarrow", "regex", "sentencepiece", "tiktoken"),
)

if __name__ == "__main__":
    run_stage_command(STAGE, "shards", "engine")

"""The data stages as one array job: pages -> texts -> documents -> tokenizer -> shards, by many processes of this same
command, each with a rank.

    python -m launch.data CONFIG.py --workdir s3://BUCKET/run --engine.rank 0 --engine.world 8

Slurm and Kubernetes say the rank themselves; launch.cloud.slurm_data writes and submits such a job. The run folder is
in a bucket, or on a disk that all see. docs/engines.md.
"""

import dataclasses
import sys

from configs.experiment import parse_run
from launch import extract_texts, fetch_pages, prepare_documents, train_tokenizer, write_shards
from launch.folder.guard import refuse_inputs_in_outputs
from launch.stages.array import run_stages
from launch.stages.command import told
from launch.stages.fit import fit_to_data
from lm.errors import UsageError
from lm.storage import mirror_of

STAGES = {
    script.STAGE.name: script.STAGE
    for script in (fetch_pages, extract_texts, prepare_documents, train_tokenizer, write_shards)
}


@dataclasses.dataclass(frozen=True)
class Options:
    until: str = "shards"
    """The last stage that is made: pages, texts, documents, tokenizer or shards."""


def main(words: list[str]) -> None:
    command = parse_run("launch.data", __doc__ or "", words, READS, Options)
    experiment, workdir, source, options = fit_to_data(command), command.workdir, command.source, command.options
    if source is not None:
        raise UsageError(f"--from {source} is for one process. Begin the run with it by launch.pretrain.")
    if options.until not in STAGES:
        raise UsageError(f"--until is {options.until!r}; choose one of {', '.join(STAGES)}.")
    engine = experiment.engine
    if not (engine.executor.ranks or engine.executor.this_machine):
        raise UsageError(
            f"engine.runner is {engine.runner}, but launch.data is for array jobs, whose processes share "
            "the work by their ranks. Leave --engine.runner out; or give it to python -m launch.pretrain."
        )
    experiment = dataclasses.replace(experiment, engine=dataclasses.replace(engine, runner="array"))
    refuse_inputs_in_outputs(experiment, workdir)
    mirror = mirror_of(workdir)
    names = list(STAGES)
    stages = [STAGES[name] for name in names[: names.index(options.until) + 1]]
    run_stages(stages, experiment, mirror.url if mirror else workdir.absolute())


READS = ("pages", "documents", "tokenizer", "shards", "engine")

if __name__ == "__main__":
    with told("launch.data", "interrupted; what is done is kept, and the same command goes on from there."):
        main(sys.argv[1:])

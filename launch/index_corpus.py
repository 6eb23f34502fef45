"""Index the token shards that a run trains on, to look up any passage: where and how often it occurs, in which
documents.

    python -m launch.index_corpus runs/demo

Writes corpus_index/ of the run folder, 6 bytes per token, for the window and launch.search_corpus
(docs/corpus_index.md).
"""

from dataclasses import dataclass
from pathlib import Path

from configs.experiment import Experiment
from configs.experiment.command_line import Flag
from launch import write_shards
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.corpus_index.format import settings_of
from lm.data.mixture import mixture_manifests
from lm.run_paths import RunPaths

INDEXED = ("train.mixture", "train.own_weight")
"""Settings that decide which shards are indexed."""


@dataclass(frozen=True)
class Options:
    check: Flag = 0
    """Verify every byte of the existing index, instead of building it."""


def make(experiment: Experiment, run: Path) -> None:
    from lm.corpus_index.build import build_index

    say = lambda text: print(f"corpus_index: {text}", flush=True)
    build_index(RunPaths(run).tokens, RunPaths(run).corpus_index, say=say, train=experiment.train)


def check(experiment: Experiment, workdir: Path, options: Options) -> bool:
    if options.check:
        from lm.corpus_index.index import CorpusIndex

        CorpusIndex(workdir, experiment.train).check()
        print(f"corpus_index: whole ({RunPaths(workdir).corpus_index})")
    return bool(options.check)


STAGE = Stage(
    name="corpus_index",
    script="launch.index_corpus",
    after=(write_shards.STAGE,),
    settings=lambda experiment: settings_of(experiment.train),
    external_inputs=lambda experiment: mixture_manifests(experiment.train),
    make=make,
    outputs=(RunPaths.corpus_index,),
    libraries=("numpy",),
)

if __name__ == "__main__":
    run_stage_command(STAGE, *INDEXED, options=Options, on_the_side=check)

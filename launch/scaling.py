"""Fit a scaling law: train a ladder of small models, fit loss = E + A/N^a + B/D^b, and recommend the parameters N and
tokens D for a FLOP budget.

    python -m launch.scaling configs/demo.py --budget 1e15 --rungs 7e4 1.1e5 1.6e5 2.5e5 --tokens 1.5e5 3e5 6e5

Each rung is a run folder in scaling/ of the run folder, and is trained once. docs/scaling.md explains the method and
its limits.
"""

from pathlib import Path

from configs.experiment import Experiment
from launch import extract_texts, fetch_pages, prepare_documents, train, train_tokenizer, write_shards
from launch.run_folder.checks import refuse_inputs_in_outputs
from launch.stages.command import locked, run_command
from launch.stages.rungs import refuse_bucket, train_rungs
from launch.stages.stage import run_stage
from lm.data.records import read_manifest
from lm.errors import InputError
from lm.own_process import in_own_process
from lm.run_paths import RunPaths
from lm.scaling.ladder import LadderConfig as Options
from lm.scaling.ladder import measured_on, refuse_repetition, windows_in
from lm.storage import write_atomically, write_json
from lm.training.memory import check_training_memory

DATA = (fetch_pages, extract_texts, prepare_documents, train_tokenizer, write_shards)


def scale(experiment: Experiment, workdir: Path, asked: Options) -> bool:
    """Run the data stages and train missing rungs, then write the results; return True, since the script does nothing
    else."""
    from lm.scaling.ladder import make_ladder
    from lm.scaling.study import study, study_text
    from viewer.answers import key_of
    from viewer.page import window_html

    refuse_bucket(workdir)
    experiment.engine.refuse_detached("launch.scaling")
    asked.check(experiment.train)
    ladder = in_own_process(make_ladder, experiment.model, experiment.train, asked)
    in_own_process(check_training_memory, ladder[-1].model, ladder[-1].train)
    refuse_inputs_in_outputs(experiment, workdir)
    paths = RunPaths(workdir)
    with locked(workdir):
        for script in DATA:
            run_stage(script.STAGE, experiment, workdir)
    splits = read_manifest(paths.tokens).splits
    refuse_repetition(ladder, splits["train"].tokens, asked.epochs)
    windows = windows_in(splits["val"], experiment.model.context_length)
    ladder = [measured_on(rung, windows) for rung in ladder]
    measured, failed = train_rungs(train.STAGE, write_shards.STAGE, experiment, ladder, workdir)
    made = study(measured, failed, asked.budget, splits["train"].tokens)
    write_json(paths.scaling_json, made.as_json())
    answers = {key_of("model", {}): {"name": workdir.resolve().name}, key_of("scaling", {}): made.as_json()}
    write_atomically(paths.scaling_page, window_html(answers, pages=("scaling",)))
    print(f"\n{study_text(made)}\nSee {paths.scaling_page}, and {paths.scaling_json}", flush=True)
    if failed:
        raise InputError(f"{len(failed)} of {len(ladder)} rungs failed; the same command tries them again.")
    return True


if __name__ == "__main__":
    run_command("launch.scaling", (__doc__ or "").strip(), lambda *given: None, ("model", "train"), Options, scale)

"""Train a finetuned model by reinforcement learning on a task that checks answers.

    python -m launch.reinforce runs/assistant configs/reinforce.py --reinforce.task calculator
    python -m launch.reinforce runs/reinforce          resumes it

Of several answers to the same question, those with a higher reward become more likely. Runs on one device, and trains
all parameters. Of the section train, it reads steps, seed, optimizer, validate_every, checkpoint_every,
checkpoints_kept and log_every; others must have the values of the run before it. The page Training of the window
(launch.serve) plots the rewards; launch.chat talks to the result.
"""

import dataclasses
import json
from pathlib import Path

from configs.experiment import Experiment
from configs.experiment.run_folder import RunFolder, experiment_json
from launch import train
from launch.stages.command import run_command
from launch.stages.stage import run_stage
from launch.stages.trained import load_template
from lm.address_space import TRAINING, check_address_space
from lm.checkpoints.manifest import find_parameters, folders_of
from lm.compilation_cache import keep_compiled_programs
from lm.config import LoraConfig, StartConfig
from lm.errors import UsageError, shown
from lm.fields import code_names, flatten
from lm.reinforcement.tasks import PAGE_QUESTIONS, Task, task_named
from lm.run_paths import RunPaths
from lm.storage import file_sha256, shown_place
from lm.tokenizer import load, save
from lm.trusted_code import code_hashes

READS = (
    "reinforce.", "model.", "train.steps", "train.seed", "train.optimizer.", "train.validate_every",
    "train.checkpoint_every", "train.checkpoints_kept", "train.log_every", "chat.base", "chat.questions",
)  # fmt: skip
"""Settings that reinforcement reads (chat.questions: launch.report does); a dot at the end: all of the section."""

UNUSED = {"lora": LoraConfig(), "ema_decay": 0.0, "patience": 0}
"""Values of fields of train that reinforcement turns off, whatever their values in the run before it."""


def prepared(experiment: Experiment, workdir: Path) -> Experiment:
    """Fill in the checkpoint to start from, the newest of reinforce.base, and turn off what launch.reinforce does not
    use. Raises UsageError if there is no base or no such task, and for settings that are not read; TemplateError if the
    base has no chat template."""
    if not (base := experiment.reinforce.base):
        raise UsageError(
            "reinforce.base is empty: launch.reinforce starts from a finetuned run. Give it before the config: python "
            "-m launch.reinforce RUN CONFIG.py"
        )
    check_task(experiment)
    load_template(Path(base))
    start = find_parameters(folders_of(RunPaths(base)), experiment.reinforce.step)[0]
    off = UNUSED | {"start": StartConfig(checkpoint=str(start))}
    without = lambda one: dataclasses.replace(one, train=dataclasses.replace(one.train, **off))
    of_base = RunFolder(Path(base)).experiment()
    accepted = [of_base, without(of_base)]
    if RunPaths(workdir).config_json.exists():  # this run itself, which is resumed
        accepted.append(RunFolder(workdir).experiment())
    refuse_unread(settings_of(experiment), [*map(settings_of, accepted)])
    return dataclasses.replace(
        without(experiment), reinforce=dataclasses.replace(experiment.reinforce, step=int(start.name))
    )


def settings_of(experiment: Experiment) -> dict[str, object]:
    """Return {dotted name: value} of all settings, as in config.json."""
    return flatten(json.loads(experiment_json(experiment)))


def refuse_unread(given: dict[str, object], accepted: list[dict[str, object]]) -> None:
    """Raise UsageError for settings that reinforcement does not read (READS), if their values are in none of the
    `accepted` settings, the first of which are those of reinforce.base."""
    is_read = lambda name: name != "model.attention" and name.startswith(READS)  # no kernel reads a cache
    values = {name: [one.get(name) for one in accepted] for name in given}
    if wrong := [name for name in given if not is_read(name) and given[name] not in values[name]]:
        changed = ", ".join(f"{name} = {shown(given[name], quotes=False)}" for name in wrong[:6])
        before = ", ".join(shown(values[name][0], quotes=False) for name in wrong[:6])
        raise UsageError(
            f"launch.reinforce does not read {changed}{', ...' if wrong[6:] else ''}. Leave it as in "
            f"{given['reinforce.base']}: {before}. Of train, it reads "
            f"{', '.join(name[6:].removesuffix('.') for name in READS if name.startswith('train.'))}."
        )


def check_task(experiment: Experiment) -> None:
    """Raise UsageError like `task_named`, or if the task asks about pages, but chat.base has no corpus index."""
    base = experiment.chat.base
    if experiment.reinforce.task != PAGE_QUESTIONS:
        task_named(experiment.reinforce.task)
    elif not base or not corpus_index(base).is_file():
        raise UsageError(
            f"reinforce.task {PAGE_QUESTIONS} asks about the pages of chat.base, which is {base or 'empty'} and has no "
            "corpus index. Run: python -m launch.index_corpus RUN for the run that was finetuned, or choose another "
            "task."
        )


def corpus_index(base: str) -> Path:
    """File that describes the corpus index of the run that was finetuned."""
    return RunPaths(base).corpus_index / "index.json"


def task_of(experiment: Experiment) -> Task:
    """The task that reinforce.task names. Raises like `task_named` and page_questions.lookups."""
    if experiment.reinforce.task != PAGE_QUESTIONS:
        return task_named(experiment.reinforce.task)
    from configs.recipes.page_questions import lookups

    return lookups(Path(experiment.chat.base))


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """SHA-256 of the checkpoint to start from, of the user's own task, and of the pages that the task asks about."""
    found = train.external_inputs(experiment) | code_hashes(code_names(experiment.reinforce, "reinforce."))
    if experiment.reinforce.task == PAGE_QUESTIONS:
        found["SHA-256 of the corpus index"] = file_sha256(corpus_index(experiment.chat.base))
    return found


def make(experiment: Experiment, run: Path) -> None:
    check_address_space(TRAINING)
    keep_compiled_programs()
    from lm.reinforcement.loop import reinforce

    tokenizer = load(RunPaths(experiment.reinforce.base).tokenizer)
    save(tokenizer, RunPaths(run).tokenizer)
    reinforce(experiment.model, experiment.train, experiment.reinforce, tokenizer, run, task_of(experiment))


STAGE = dataclasses.replace(
    train.STAGE,
    script="launch.reinforce",
    after=(),
    after_reinforcement=(),
    settings=lambda experiment: train.STAGE.settings(experiment) | {"reinforce": experiment.reinforce},
    external_inputs=external_inputs,
    make=make,
    outputs=(RunPaths.tokenizer, RunPaths.checkpoints),
    optional=(),
    required_outputs=lambda workdir: (RunPaths.tokenizer, *train.newest(workdir)),
    multi_process=False,
)


def run(experiment: Experiment, workdir: Path, source: Path | None = None) -> None:
    if source is not None:
        raise UsageError(f"--from {source} reuses stages of pretraining; launch.reinforce starts from reinforce.base.")
    if not run_stage(STAGE, prepared(experiment, workdir), workdir):
        print("reinforce: up to date", flush=True)
    print(f"reinforce: done. To talk to it: python -m launch.chat {shown_place(workdir)}")


if __name__ == "__main__":
    listed = [name.removesuffix(".") for name in READS if name.startswith(("reinforce", "train"))]
    run_command("launch.reinforce", (__doc__ or "").strip(), run, listed, from_run="reinforce")

"""Train a finetuned model by reinforcement learning on a task that checks answers.

    python -m launch.reinforce runs/assistant configs/reinforce.py --reinforce.task calculator
    python -m launch.reinforce runs/reinforce          resumes it

Of several answers to the same question, those with a higher reward become more likely. Training is that of
launch.train, with all its options except those about shards and the loss of tokens, which are refused. The page
Training of the window (launch.serve) plots the rewards; launch.chat talks to the result.
"""

import dataclasses
import functools
import json
import time
from pathlib import Path

from configs.experiment import Experiment
from configs.experiment.run_folder import RunFolder, experiment_json
from launch import train
from launch.stages.command import run_command
from launch.stages.processes import load_training
from launch.stages.stage import run_stage
from launch.stages.trained import load_template
from lm.address_space import TRAINING, check_address_space
from lm.checkpoints.manifest import find_parameters, folders_of
from lm.config import LoraConfig, StartConfig, TrainConfig
from lm.errors import UsageError, shown
from lm.fields import code_names, flatten
from lm.reinforcement.tasks import PAGE_QUESTIONS, Task, task_named
from lm.run_paths import RunPaths
from lm.storage import file_sha256, shown_place
from lm.tokenizer import load, save
from lm.trusted_code import code_hashes

READS = ("reinforce.", "model.", "train.", "chat.base", "chat.questions")
"""Settings that reinforcement reads (chat.questions: launch.report does); a dot at the end: all of the section."""

UNUSED = {
    name: reason
    for reason, names in {
        "no kernel reads a cache": ("model.attention",),
        "a step has reinforce.prompts x reinforce.samples answers": ("train.batch_size",),
        "reinforce.held_out is the number of questions": ("train.validation_batches",),
        "the layouts are for pretraining": ("train.layout",),
        "training starts from reinforce.base and reinforce.step": ("train.start",),
        "all parameters are trained": ("train.lora",),
        "there is no validation loss": ("train.patience", "train.checkpoints_kept_best"),
        "the devices share the answers": ("train.mesh.tensor", "train.mesh.context"),
        "the log-probabilities of answers are those of the sampler": (
            "train.dropout", "train.activation_metrics", "train.z_loss",
        ),
        "logits are computed token by token": ("train.loss_chunks", "train.skip_untrained"),
        "the backward pass always recomputes activations": (
            "train.remat", "train.remat_keep", "train.remat_offload",
        ),
        "no shards are read": (
            "train.mixture", "train.own_weight", "train.shuffle_block", "train.loader_threads", "train.verify_shards",
            "train.batch_schedule", "train.context_schedule", "train.mixture_schedule",
        ),
    }.items()
    for name in names
}  # fmt: skip
"""{setting that must be as in the run before it: why reinforcement does not use it}."""


def prepared(experiment: Experiment, workdir: Path) -> Experiment:
    """Fill in the checkpoint to start from, the newest of reinforce.base. Raises UsageError if there is no base or no
    such task, and for settings that are not used; TemplateError if the base has no chat template."""
    if not (base := experiment.reinforce.base):
        raise UsageError(
            "reinforce.base is empty: launch.reinforce starts from a finetuned run. Give it before the config: python "
            "-m launch.reinforce RUN CONFIG.py"
        )
    check_task(experiment)
    load_template(Path(base))
    start = find_parameters(folders_of(RunPaths(base)), experiment.reinforce.step)[0]
    off = {"lora": LoraConfig(), "patience": 0, "start": StartConfig(checkpoint=str(start))}
    without = lambda one: dataclasses.replace(one, train=dataclasses.replace(one.train, **off))
    of_base = RunFolder(Path(base)).experiment()
    accepted = [of_base, without(of_base)]
    if RunPaths(workdir).config_json.exists():  # this run itself, which is resumed
        accepted.append(RunFolder(workdir).experiment())
    refuse_unused(settings_of(experiment), [*map(settings_of, accepted)])
    reinforce = dataclasses.replace(experiment.reinforce, step=int(start.name))
    found = dataclasses.replace(without(experiment), reinforce=reinforce)
    training_config(found)
    return found


def training_config(experiment: Experiment) -> TrainConfig:
    """Return experiment.train without the UNUSED settings, for steps in parts of reinforce.slots answers. Raises
    UsageError if train.micro_batches does not divide these."""
    train, config = experiment.train, experiment.reinforce
    if config.slots % train.micro_batches:
        raise UsageError(
            f"train.micro_batches = {train.micro_batches} does not divide reinforce.slots = {config.slots} answers. "
            "Choose a divisor."
        )
    parts = -(-config.prompts * config.samples // config.slots)
    unused = [one for one in dataclasses.fields(train) if f"train.{one.name}" in UNUSED and one.name != "start"]
    defaults = {one.name: one.default for one in unused if one.default is not dataclasses.MISSING}
    own = {"verify_shards": False, "batch_size": parts * config.slots, "micro_batches": parts * train.micro_batches}
    return dataclasses.replace(train, **defaults | own)


def settings_of(experiment: Experiment) -> dict[str, object]:
    """Return {dotted name: value} of all settings, as in config.json."""
    return flatten(json.loads(experiment_json(experiment)))


def refuse_unused(given: dict[str, object], accepted: list[dict[str, object]]) -> None:
    """Raise UsageError for settings that reinforcement does not use (READS, UNUSED), if their values are in none of the
    `accepted` settings, the first of which are those of reinforce.base."""

    def why_unused(name: str) -> str:
        reasons = [reason for unused, reason in UNUSED.items() if f"{name}.".startswith(f"{unused}.")]
        return "".join(reasons) or ("" if name.startswith(READS) else "only other commands read it")

    values = {name: [one.get(name) for one in accepted] for name in given}
    if wrong := [name for name in given if why_unused(name) and given[name] not in values[name]]:
        changed = ", ".join(f"{name} = {shown(given[name], quotes=False)} ({why_unused(name)})" for name in wrong[:6])
        before = ", ".join(shown(values[name][0], quotes=False) for name in wrong[:6])
        raise UsageError(
            f"launch.reinforce does not use {changed}{', ...' if wrong[6:] else ''}. Leave it as in "
            f"{given['reinforce.base']}: {before}."
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
    began = time.time()
    check_address_space(TRAINING)
    config = training_config(experiment)
    train = load_training(run, began, config.join_timeout, config.start_seconds)
    from lm.reinforcement.sampler import open_answers

    save(load(RunPaths(experiment.reinforce.base).tokenizer), RunPaths(run).tokenizer)
    model = dataclasses.replace(experiment.model, attention="auto")
    open_data = functools.partial(open_answers, experiment.reinforce, task_of(experiment))
    train(model, config, run, open_data=open_data)


STAGE = dataclasses.replace(
    train.STAGE,
    script="launch.reinforce",
    after=(),
    after_reinforcement=(),
    settings=lambda experiment: train.STAGE.settings(experiment) | {"reinforce": experiment.reinforce},
    external_inputs=external_inputs,
    make=make,
    outputs=(RunPaths.tokenizer, *train.STAGE.outputs),
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
    fields = (f"train.{one.name}" for one in dataclasses.fields(TrainConfig))
    listed = ["reinforce", *(name for name in fields if name not in UNUSED)]
    run_command("launch.reinforce", run, listed, from_run="reinforce")

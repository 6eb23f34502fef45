"""Bits per byte on the held-out documents, beside gzip, xz and zstd: the model as a zip file of its corpus."""

from pathlib import Path

from configs.experiment import Experiment
from launch import train, train_tokenizer, write_shards
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.planning.memory import check_inference_memory


def make(experiment: Experiment, workdir: Path, out: Path) -> None:
    from lm.checkpoints.manager import restore_model
    from lm.evaluation.evaluators import evaluate
    from lm.planning.flops import count_parameters
    from lm.storage import write_json
    from lm.tokenizer import load

    rows = experiment.evaluate.batch_size
    check_inference_memory(experiment.model, rows, experiment.model.context_length, "evaluate.batch_size")
    model = restore_model(experiment.model, workdir / "checkpoints")
    tokenizer = load(workdir / "tokenizer")
    figures = evaluate(model, experiment.model, experiment.evaluate, tokenizer, workdir / "tokens")
    write_json(out / "evaluation.json", {**figures, "parameters": count_parameters(experiment.model)})
    shown = {name: f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" for name, value in figures.items()}
    print("evaluate: " + ", ".join(f"{name} {value}" for name, value in shown.items()))


STAGE = Stage(
    name="evaluate",
    script="launch.evaluate",
    after=(train_tokenizer.STAGE, write_shards.STAGE, train.STAGE),
    settings=lambda experiment: {"evaluate": experiment.evaluate},
    make=make,
    outputs=("evaluation.json",),
)

if __name__ == "__main__":
    run_stage_command(STAGE, "evaluate")

"""Any task of EleutherAI's lm-evaluation-harness, by a trained model; the results go into lm_eval/ of the run folder.

    python -m launch.lm_eval runs/demo --tasks hellaswag lambada_openai --limit 200

Data sets come from Hugging Face's hub, or from files (--data, --include-path). The run itself stays as it is.
"""

from dataclasses import dataclass
from pathlib import Path

from configs.experiment import Experiment
from launch.stages.benchmarks import evaluate_by_harness
from launch.stages.command import run_command
from lm.errors import UsageError


@dataclass(frozen=True)
class Options:
    tasks: tuple[str, ...] = ()
    """Tasks, groups or patterns of lm-eval."""
    num_fewshot: int | None = None
    """Examples before each question; by default the task's own number."""
    limit: int = 0
    """The first so many examples of each task; 0 for all."""
    include_path: str = ""
    """Folder with tasks of your own, as lm-eval describes them."""
    data: str = ""
    """Folder of the data sets of the tasks that launch.evaluate knows, with the hub's columns; empty for the hub."""
    add_bos_token: bool | None = None
    """Begin each context with the BOS token; by default if the tokenizer's prompts do (not those of an imported model
    whose own tokenizer adds none)."""
    step: int | None = None
    """The checkpoint of this step; by default the newest."""


def on_the_side(experiment: Experiment, workdir: Path, options: Options) -> bool:
    if not options.tasks:
        raise UsageError("--tasks names no task. Give one of lm-eval's, such as --tasks hellaswag.")
    evaluate_by_harness(
        experiment, workdir, options.tasks, options.num_fewshot, options.limit, options.include_path, options.data,
        options.add_bos_token, options.step,
    )  # fmt: skip
    return True


def run(experiment: Experiment, workdir: Path, source: Path | None) -> None:
    raise AssertionError("on_the_side does all there is to do")


if __name__ == "__main__":
    run_command("launch.lm_eval", (__doc__ or "").strip(), run, ("evaluate",), Options, on_the_side)

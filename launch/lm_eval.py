"""Evaluate a trained model with EleutherAI's lm-evaluation-harness. Writes results to lm_eval/ of the run folder.

    python -m launch.lm_eval runs/demo --tasks hellaswag lambada_openai --limit 200

Datasets are downloaded from Hugging Face's hub, or read from files (--data, --include-path). The rest of the run is not
changed.
"""

from dataclasses import dataclass
from pathlib import Path

from configs.experiment import Experiment
from configs.experiment.command_line import Flag
from launch.stages.benchmarks import evaluate_by_harness
from launch.stages.command import run_command
from lm.errors import UsageError


@dataclass(frozen=True)
class Options:
    tasks: tuple[str, ...] = ()
    """Tasks, groups or patterns of lm-eval."""
    num_fewshot: int | None = None
    """Few-shot examples per question; default: the task's own number."""
    limit: int = 0
    """Use only the first N examples of each task; 0: all."""
    include_path: str = ""
    """Folder with your tasks, in the format of lm-eval."""
    data: str = ""
    """Folder with datasets, with the hub's columns: TASK/SPLIT.jsonl or .parquet; default: the hub."""
    apply_chat_template: Flag = 0
    """Ask in conversations, by the chat template of the run's tokenizer; few-shot examples are earlier questions."""
    run_code: Flag = 0
    """Allow HumanEval to run programs that the model writes, in processes that can only compute and read files."""
    add_bos_token: bool | None = None
    """Begin each context with BOS; default: if the tokenizer adds it to prompts (not for an imported model whose
    tokenizer does not)."""
    step: int | None = None
    """Step of the checkpoint; default: the newest."""


def on_the_side(experiment: Experiment, workdir: Path, options: Options) -> bool:
    if not options.tasks:
        raise UsageError("--tasks is empty. Give a task of lm-eval, such as --tasks hellaswag.")
    evaluate_by_harness(
        experiment, workdir, options.tasks, options.num_fewshot, options.limit, options.include_path, options.data,
        options.add_bos_token, options.step, bool(options.apply_chat_template),
        bool(options.run_code),
    )  # fmt: skip
    return True


if __name__ == "__main__":
    run_command(
        "launch.lm_eval",
        (__doc__ or "").strip(),
        None,
        ("evaluate.batch_size",),
        options=Options,
        on_the_side=on_the_side,
    )

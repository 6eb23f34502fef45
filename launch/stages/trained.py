"""Use a trained model, in later stages or on the side: on all devices, of one process or several."""

from pathlib import Path
from typing import TYPE_CHECKING

from configs.experiment import Experiment
from configs.experiment.run_folder import Loaded, RunFolder
from launch.stages.processes import initialize_distributed, process_count, process_index, require_one_process
from lm.address_space import JAX, check_address_space
from lm.compilation_cache import keep_compiled_programs, use_bucket_cache
from lm.errors import InputError
from lm.model.cost import check_inference_memory
from lm.run_paths import RunPaths

if TYPE_CHECKING:
    from lm.chat.template import ChatTemplate
    from lm.inference.weights import Weights


def load_trained(
    experiment: Experiment, workdir: Path, rows: int, option: str, step: int | None = None,
    *, tokens: int | None = None, weights: "Weights | None" = None,
) -> Loaded:  # fmt: skip
    """Load the model of the run in `workdir` at `step` (default: the newest) when all processes have connected. With
    `weights`, a format of lm.inference.weights such as "int8", the model is on one device, converted to that format.

    `rows` sequences of `tokens` tokens (default: the context) will be computed at once; `option` is the option that
    sets `rows`, for messages. Raises UsageError if that does not fit into memory, or if processes have different
    settings, or if there are several with `weights`; InputError or UsageError if the checkpoint is missing, damaged, or
    of another model or tokenizer.
    """
    check_address_space(JAX)
    keep_compiled_programs()
    run, model, tokens = RunFolder(workdir), experiment.model, tokens or experiment.model.context_length
    run.fetch(RunPaths.tokenizer)
    use_bucket_cache()
    initialize_distributed(experiment.train.join_timeout)
    if process_count() > 1:
        from launch.stages.agreement import agree_on

        agree_on(experiment, workdir, rows=rows, tokens=tokens, step=step)
    check_inference_memory(model, rows, tokens, option)
    if weights is None:
        loaded = run.load(step=step, experiment=experiment)
        if loaded.one_device:
            say(f"Using one device, because the mesh of the config does not fit this machine: {loaded.one_device}")
        return loaded
    require_one_process(f"--weights {weights}", "Omit --weights.")
    from lm.inference.weights import for_inference
    from lm.parallel import one_device_mesh, traced_on

    loaded = run.load(one_device_mesh(model), step, experiment)
    return loaded._replace(model=traced_on(loaded.mesh, for_inference)(loaded.model, model, weights))


def load_template(workdir: Path) -> "ChatTemplate":
    """Load the chat template of a run, without its model. Raises TemplateError if it has none or an invalid one."""
    from lm.chat.template import ChatTemplate, TemplateError

    run = RunFolder(workdir)
    try:
        return ChatTemplate(run.load_tokenizer())
    except TemplateError as error:
        raise TemplateError(f"{run.place}: {error}") from error


def say(text: str) -> None:
    """Print a line, in process 0 only."""
    if process_index() == 0:
        print(text, flush=True)


def leave_together() -> None:
    """Wait for all processes before exiting: if one exits early, JAX ends the others too."""
    if process_count() > 1:
        from lm.resilience.multihost import settle

        settle("leave", None, bool)


def read_text(path: Path) -> str:
    """Text of a file, without a byte order mark. Raises InputError if it cannot be read, is not UTF-8, or is empty."""
    try:
        text = path.expanduser().read_bytes().decode("utf-8-sig")
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be read: {reason}. Give the path of a text file.") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text: byte {error.start:,} is {error.object[error.start]:#04x}. Convert it (iconv "
            "-t UTF-8), or give another file."
        ) from error
    if not text:
        raise InputError(f"{path} is empty. Give a file with text.")
    return text

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
from lm.storage import shown_place

if TYPE_CHECKING:
    from lm.chat.template import ChatTemplate
    from lm.inference.weights import Weights

COMPRESSORS = ("gzip", "zstd", "xz")


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


def sample(experiment: Experiment, workdir: Path, step: int | None = None) -> list[dict[str, object]]:
    """Print a continuation of each of sample.prompts at each of sample.temperatures; return [{"prompt", "temperature",
    "text"}]. Raises UsageError for a prompt that leaves no room for new tokens, and the errors of `load_trained`."""
    import jax

    from lm.errors import for_terminal
    from lm.inference.generate import sample_texts

    config = experiment.sample
    pairs = [(prompt, temperature) for prompt in config.prompts for temperature in config.temperatures]
    prompts, temperatures = [prompt for prompt, _ in pairs], [temperature for _, temperature in pairs]
    run = load_trained(experiment, workdir, len(pairs), "the number of sample.prompts", step, tokens=config.tokens)
    texts = sample_texts(
        run.model, experiment.model, run.tokenizer, prompts, temperatures, config.tokens,
        key=jax.random.key(config.seed), mesh=run.mesh,
    )  # fmt: skip
    for (prompt, temperature), text in zip(pairs, texts, strict=True):
        say(f"\n--- {prompt!r} at temperature {temperature:g}\n{for_terminal(text)}")
    say("")
    leave_together()
    return [{"prompt": p, "temperature": t, "text": text} for (p, t), text in zip(pairs, texts, strict=True)]


def evaluate(experiment: Experiment, workdir: Path, step: int | None = None) -> dict[str, float]:
    """Evaluate the model on the held-out text; print and return {metric: value}. Raises the errors of
    `load_trained`."""
    from lm.evaluation.evaluators import evaluate
    from lm.model.cost import count_parameters

    config = experiment.evaluate
    run = load_trained(experiment, workdir, config.batch_size, "evaluate.batch_size", step)
    tokens = shown_place(RunFolder(workdir).tokens)
    figures = evaluate(run.model, experiment.model, config, run.tokenizer, tokens, run.mesh)
    bits = {name.removesuffix("_bits_per_byte"): value for name, value in figures.items() if "bits_per_byte" in name}
    if bits:
        say("evaluate: bits per byte: " + ", ".join(f"{name} {value:.3f}" for name, value in bits.items()))
    others = {name: value for name, value in figures.items() if "bits_per_byte" not in name}
    shown = {name: f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" for name, value in others.items()}
    say("evaluate: " + ", ".join(f"{name} {value}" for name, value in shown.items()))
    leave_together()
    return {**figures, "parameters": count_parameters(experiment.model)}


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

"""Export a trained model to the format of another program.

    python -m launch.export runs/demo release/demo --format hugging_face

Holds only one parameter in memory at a time. The run is not changed.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from configs.experiment import existing_run
from configs.experiment.run_folder import OpenedRun
from launch.release.out_folder import RECORD, files_in, whole_folder
from launch.stages.command import run_without_config
from lm.errors import UsageError
from lm.storage import writing


def write_hugging_face_folder(run: OpenedRun, out: Path, dtype: str) -> None:
    from launch.release.model_card import kept_of, model_card
    from lm.formats.hugging_face.names import stored_tensors
    from lm.formats.hugging_face.tokenizer_files import write_tokenizer
    from lm.formats.hugging_face.writing import write_hugging_face
    from lm.formats.safetensors import NAMES

    if dtype not in ("", *NAMES):
        raise UsageError(f"--dtype is {dtype!r}; a Hugging Face folder supports {', '.join(NAMES)}.")
    kept = kept_of(run)
    same = run.step == 0 and kept.dtypes.keys() == stored_tensors(run.config).keys()
    dtypes = dtype or (kept.dtypes if same else "")  # an unchanged imported model keeps its original types
    write_hugging_face(out, run.config, run.parameters, run.tokenizer, dtypes)
    write_tokenizer(out, run.tokenizer, run.config.context_length)
    for name, data in kept.files.items():
        (out / name).write_bytes(data)
    (out / "README.md").write_text(model_card(run), encoding="utf-8")


def write_adapter_folder(run: OpenedRun, out: Path, dtype: str) -> None:
    from lm.formats.hugging_face.adapter import write_adapter
    from lm.formats.parameters import StoredParameters

    lora = run.experiment.train.lora
    if not lora.rank or dtype:
        raise UsageError(
            f"--adapter with --dtype {dtype or 'not set'}, of a run with train.lora.rank = {lora.rank}: it writes "
            "float32 adapters, of a run that trained some. Leave out --dtype, or --adapter to export all weights, "
            "merged."
        )
    write_adapter(out, run.config, lora, StoredParameters(run.parameters.folder.parent, "training"))


def write_standalone_folder(run: OpenedRun, out: Path, dtype: str) -> None:
    from lm.formats.standalone.writing import write_standalone

    write_standalone(out, run.config, run.parameters, run.tokenizer, run.name, dtype)


def write_gguf_file(run: OpenedRun, out: Path, dtype: str) -> None:
    from lm.formats.gguf.writing import write_gguf

    write_gguf(out, run.config, run.parameters, run.tokenizer, run.name, dtype)


FORMATS = {"hugging_face": write_hugging_face_folder, "standalone": write_standalone_folder}
"""{name: function that writes the run to a new, empty folder in that format}. Each raises UsageError for unsupported
models and options."""
FILE_FORMATS = {"gguf": write_gguf_file}
"""The same for formats of a single file, which the function writes atomically."""


def export(run: OpenedRun, out: Path, format: str, dtype: str = "", adapter: bool = False) -> None:
    """Write the run to the folder or file `out`, in a format such as "gguf", atomically. `dtype` is the type of the
    weights in the naming of the format, or "" for the type of training. With `adapter`, only the adapters of train.lora
    are written. Raises UsageError if `out` exists and is not an earlier export, and for models and options that the
    format does not support; InputError if the disk cannot be written."""
    if adapter and format != "hugging_face":
        raise UsageError(f"--adapter with --format {format}: only hugging_face has adapters. Leave out one of them.")
    if format in FILE_FORMATS:
        if out.exists() or out.is_symlink():
            raise UsageError(f"OUT {out} already exists. Nothing was changed. Give a file that does not exist yet.")
        with writing(out):
            FILE_FORMATS[format](run, out, dtype)
        return
    if format not in FORMATS:
        raise UsageError(f"--format is {format!r}; choose one of {', '.join((*FORMATS, *FILE_FORMATS))}.")
    with whole_folder(out) as partial:
        (write_adapter_folder if adapter else FORMATS[format])(run, partial, dtype)
        record = {"run": run.name, "step": run.step, "format": format, "files": files_in(partial)}
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Command:
    run: tyro.conf.Positional[str]
    """Run folder, on a disk or in a bucket."""
    out: tyro.conf.Positional[str]
    """Output folder: new, empty, or written by this script before. For gguf, the output file."""
    format: str = "hugging_face"
    """Format: hugging_face, gguf (llama.cpp), or standalone (a folder that needs only NumPy)."""
    step: int | None = None
    """Step of the checkpoint; default: the newest."""
    dtype: str = ""
    """Type of the weights: float32, bfloat16, float16, and for gguf also q8_0; default: the type of training."""
    adapter: bool = False
    """Only the adapters of a run with train.lora, as peft loads them onto the exported base run; for hugging_face."""
    trust_code: bool = False
    """Run code named in the run folder that you have not run from a config file on this machine. Prints each file with
    its SHA-256 first."""


def run(command: Command) -> None:
    opened = existing_run(command.run).open_to_publish(command.step, "trust" if command.trust_code else "leave out")
    out = Path(command.out).expanduser()
    export(opened, out, command.format, command.dtype, command.adapter)
    print(f"export: {opened.name} at step {opened.step:,}, as {command.format}{' adapters' * command.adapter}: {out}")


if __name__ == "__main__":
    run_without_config("launch.export", Command, run)

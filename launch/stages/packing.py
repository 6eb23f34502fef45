"""Compress and decompress files with the model of a run, for launch.compress and launch.decompress."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.experiment.run_folder import RunFolder
from launch.run_folder.bucket import fetch
from launch.stages.processes import process_count
from lm.compilation_cache import keep_compiled_programs, use_bucket_cache
from lm.errors import InputError, UsageError
from lm.run_paths import RunPaths
from lm.storage import appearing, is_url, write_atomically, writing
from lm.storage.url import Url
from lm.terminal import LiveLine, counted, duration, quantity

if TYPE_CHECKING:
    from lm.compression.codec import Packed, Packer


@dataclass(frozen=True)
class Files:
    """Contents of the input file of a command, its path, and the path of the output file."""

    data: bytes
    source: Path
    target: Path

    def write(self, data: bytes) -> None:
        """Write `data` to the output file atomically. Raises InputError if the disk cannot be written."""
        with writing(self.target):
            write_atomically(self.target, data)


def files_of(file: str, out: str, default: Callable[[Path], Path], overwrite: bool) -> Files:
    """Read the file `file`. The output path is `out`, or `default` of the input path. Raises UsageError if the output
    exists and `overwrite` is not set, InputError if the input cannot be read."""
    source = Path(file).expanduser()
    target = Path(out).expanduser() if out else default(source)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror or error}. Give the path of a file.") from error
    if target.is_dir():
        raise UsageError(f"{target} is a folder. Give the path of a file to write.")
    if target.exists() and target.samefile(source):
        raise UsageError(f"{target} is also the input file, which would be lost. Give another output path.")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists. Give another path, or --overwrite to replace it.")
    return Files(data, source, target)


def load_packer(
    run: str, step: int | None = None, all_devices: bool = False, size: int = 0, trust_code: bool = False
) -> "Packer":
    """Load the model of a run, as a compressor for a file of `size` bytes, on one device or all. With `trust_code`, the
    user's code that config.json names may run. Raises UsageError if there are several processes, or if the model does
    not fit into memory, and the errors of RunFolder.load."""
    if process_count() > 1:
        raise UsageError(f"This command needs one process, but there are {process_count()}. Start only one.")
    keep_compiled_programs()
    use_bucket_cache()
    from lm.compression.codec import Packer
    from lm.compression.token_model import segments_for
    from lm.model.cost import check_inference_memory
    from lm.parallel import one_device_mesh

    folder = RunFolder.to_read(Url(run)).root if is_url(run) else Path(run).expanduser()
    experiment = RunFolder(folder).experiment("trust" if trust_code else "leave out")
    fetch(folder, (), (RunPaths.tokenizer,))
    config = experiment.model
    segments = segments_for(size, config.context_length)  # a token has at least one byte
    check_inference_memory(
        config, segments, config.context_length, "the size of the file, which is split into segments"
    )
    loaded = RunFolder(folder).load(None if all_devices else one_device_mesh(config), step, experiment)
    return Packer(loaded.model, config, loaded.tokenizer, loaded.mesh, loaded.step)


def shown_progress(verb: str) -> tuple[Callable[[int, int], None], LiveLine]:
    """Return a progress callback, called with (tokens done, all tokens), and the terminal line that it updates."""
    line, last = LiveLine(), 0.0
    began: tuple[float, int] | None = None  # after the first step, which waits for programs to be compiled

    def progress(done: int, tokens: int) -> None:
        nonlocal last, began
        now = time.monotonic()
        if began is None:
            began = now, done
        if done == began[1] or (now - last < 0.2 and done < tokens):
            return
        last = now
        rate = (done - began[1]) / max(now - began[0], 1e-9)
        left = duration((tokens - done) / max(rate, 1e-9))
        line.show(f"{verb}: {done:,} of {tokens:,} tokens  {rate:,.0f} tokens/s  {left} left")

    return progress, line


def compress_file(run: str, files: Files, step: int | None, all_devices: bool, trust_code: bool) -> None:
    """Compress a file with the model of the folder `run`; print the sizes, also with gzip, zstd and xz."""
    packer = load_packer(run, step, all_devices, len(files.data), trust_code)
    from lm.compression.codec import compress

    progress, line = shown_progress("compress")
    packed = compress(files.data, packer, progress)
    line.end()
    files.write(packed.data)
    print(report(files, packed, packer))


def decompress_file(run: str, files: Files, all_devices: bool, try_anyway: bool, trust_code: bool) -> None:
    """Decompress a file with the model of the folder `run`, at the step that is recorded in the file. `try_anyway`
    allows other library versions and another processor."""
    import io

    from lm.compression.container import Header

    name = str(files.source)
    header = Header.read(io.BytesIO(files.data), name)
    packer = load_packer(run, header.step, all_devices, header.size, trust_code) if header.tokens else None
    from lm.compression.codec import decompress_parts

    progress, line = shown_progress("decompress")
    with writing(files.target), appearing(files.target) as partial, partial.open("wb") as out:
        for part in decompress_parts(files.data, packer, name, progress, try_anyway):
            out.write(part)
        line.end()
    print(f"{name} -> {files.target}: {counted(header.size, 'byte')}, equal to the original")


def report(files: Files, packed: "Packed", packer: "Packer") -> str:
    """Text with the size of the compressed file, in bytes and in bits per original byte, also for gzip, zstd and xz."""
    import jax

    from lm.evaluation.bits_per_byte import compressed_bits_per_byte

    size, made = len(files.data), len(packed.data)
    of_file = lambda length: f"{8 * length / max(size, 1):.3f}"
    lines = [
        f"{files.source} -> {files.target}: {size:,} -> {made:,} bytes in {duration(packed.seconds)}",
        f"bits per byte: file {of_file(made)} (header {packed.header_bytes:,} bytes, coder {packed.coded_bytes:,}, "
        f"other {packed.raw_bytes:,})",
    ]
    if packed.tokens:
        lines.append(
            f"{packed.tokens:,} tokens in {counted(packed.header.segments, 'segment')}: cross-entropy of the model at "
            f"step {packer.step:,} {of_file(packed.cross_entropy_bits / 8)}, coder {of_file(packed.coded_bytes)}"
        )
    else:
        lines.append("no model is needed to decompress it: the file is short or not text, or xz compresses it better")
    if size:
        others = compressed_bits_per_byte(files.data, size)
        names = {"gzip -9": "gzip", "zstd -19": "zstd", "xz -9e": "xz"}
        lines.append(
            "others: "
            + ", ".join(
                f"{shown} {others[f'{name}_bits_per_byte']:.3f} ({others[f'{name}_bits_per_byte'] * size / 8:,.0f} "
                "bytes)" for shown, name in names.items()
            )
        )  # fmt: skip
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(packer.model))
    if packed.tokens:
        lines.append(
            f"decompression needs the model too ({quantity(parameters, 'B')} of parameters); including it, the file "
            f"has {of_file(made + parameters)} bits per byte"
        )
    return "\n".join(lines)

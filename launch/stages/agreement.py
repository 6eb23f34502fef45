"""Check that all processes have the same config, code, libraries, flags, shards and run folder before they compute."""

import contextlib
import hashlib
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

from configs.experiment import Experiment
from configs.experiment.run_folder import experiment_json
from launch.stages.processes import process_count, process_index
from lm.data.records import MANIFEST
from lm.errors import InputError
from lm.fields import code_names, flatten
from lm.run_paths import RunPaths
from lm.storage import Place, StorageError, place_of, shown_place, write_atomically
from lm.trusted_code import code_hashes
from lm.versions import installed

LIBRARIES = ("python", "jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "numpy", "optax",
             "orbax-checkpoint", "tensorstore")  # fmt: skip
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
"""Environment variables of XLA, libtpu and cuBLAS that change programs or numbers; JAX's own are in `jax.config`."""
MAY_DIFFER = {
    "this host's devices, addresses and certificates": (
        "jax_cuda_visible_devices", "jax_rocm_visible_devices", "jax_oneapi_visible_devices",
        "jax_cross_host_transfer_socket_address", "jax_cross_host_transport_addresses", "jax_mtls_ca_file",
        "jax_mtls_cert_file", "jax_mtls_key_file", "jax_mtls_peer_uri_prefix",
    ),
    "cache of compiled programs, whose keys contain all that changes a program": (
        "jax_enable_compilation_cache", "jax_compilation_cache_dir", "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes", "jax_raise_persistent_cache_errors",
    ),
    "logs, dumps and texts of errors": (
        "jax_debug_log_modules", "jax_logging_level", "jax_log_compiles", "jax_log_checkpoint_residuals",
        "jax_explain_cache_misses", "jax_compiler_detailed_logging_min_ops", "jax_distributed_debug",
        "jax_captured_constants_warn_bytes", "jax_captured_constants_report_frames", "jax_check_proxy_envs",
        "jax_dump_ir_to", "jax_dump_ir_modes", "jax_include_debug_info_in_dumps", "jax_traceback_filtering",
        "jax_tracer_error_num_traceback_frames", "jax_pprint_use_color", "jax_source_url_schema",
        "jax_hlo_source_file_canonicalization_regex",
    ),
}  # fmt: skip
"""{reason: values of `jax.config` that may differ between processes}. All others must be equal."""
CODE = ("lm", "launch")
"""Folders whose Python files define the version of the code."""
NONCE_SECONDS = 5.0
"""A network file system may show a new file this late."""


def agree_on(experiment: Experiment, run: Place, **request: Any) -> None:
    """Raise UsageError in all processes unless all have the same config, run folder, `request` (JSON values), code,
    library versions, flags and shards. Call it when the processes are connected. Does nothing for one process."""
    index, count = process_index(), process_count()
    if count == 1:
        return
    run = shown_place(run)  # each host has its own copy of a run in a bucket
    from lm.resilience.multihost import agree

    nonce = run / RunPaths.stages / "nonce"
    try:
        agree(
            {"stages/nonce, which process 0 wrote to the shared run folder,": shared_nonce(nonce)}
            | facts(experiment, run)
            | request
        )
    finally:
        if index == 0:
            with contextlib.suppress(OSError, StorageError):
                nonce.unlink(missing_ok=True)


def shared_nonce(place: Place) -> str:
    """Process 0 writes a random text to the file `place`; return what this process reads there. A process with another
    run folder gets other contents or an error text. Return "" if process 0 cannot write the file."""
    from lm.resilience.multihost import settle

    def write(_: list[None]) -> str:
        try:
            write_atomically(place, nonce := secrets.token_hex(8), durable=False)
        except (OSError, StorageError):
            return ""
        return nonce

    expected, deadline = settle("nonce", None, write), time.monotonic() + NONCE_SECONDS
    while expected and (found := text_of(place)) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    return found if expected else ""


def facts(experiment: Experiment, run: Place) -> dict[str, Any]:
    """Return {name for messages: value} of everything that determines the training program and its inputs."""
    code, root = hashlib.sha256(), Path(__file__).parents[2]
    for path in sorted(path for folder in CODE for path in (root / folder).rglob("*.py")):
        code.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    places = [place_of(source.tokens) / MANIFEST for source in experiment.train.mixture]
    manifests = {str(place): place for place in places} | {"the shards' manifest": run / RunPaths.tokens / MANIFEST}
    return (
        flatten(json.loads(experiment_json(experiment)))
        | {f"version of {name}": installed(name) for name in LIBRARIES}
        | {name: os.environ.get(name, "") for name in FLAGS}
        | jax_settings()
        | {
            f"SHA-256 of {name}": hashlib.sha256(text_of(place).encode()).hexdigest()
            for name, place in manifests.items()
        }
        | code_hashes(code_names(experiment.model, "model.") | code_names(experiment.train, "train."))
        | {f"SHA-256 of the Python files in {' and '.join(CODE)}": code.hexdigest()}
    )


def jax_settings() -> dict[str, Any]:
    """Return {name: value} of `jax.config`, without the names in MAY_DIFFER. Values that are not JSON become texts."""
    import jax

    left_out = {name for names in MAY_DIFFER.values() for name in names}
    plain = lambda value: value if isinstance(value, str | int | float | None) else str(value)
    return {name: plain(value) for name, value in sorted(jax.config.values.items()) if name not in left_out}


def text_of(place: Place) -> str:
    """Contents of a file or object; if it cannot be read, the error message."""
    try:
        return place.read_text(encoding="utf-8")
    except (OSError, InputError, ValueError) as error:
        return str(error)

"""The parts of tests/bench/card.py. Each yields rows (a dictionary a JSON line); a row with "ok": False is a failure.

Parts that start processes which use the accelerator (resume, serve) must not use it themselves: a TPU admits only one
process at a time.
"""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs import fineweb, gpt2_124m, gpt2_355m, gpt2_774m, gpt2_1558m
from configs.experiment import Experiment
from configs.layouts import LAYOUTS
from lm.config import MeshConfig, ModelConfig, SpikeConfig, TrainConfig
from lm.data.batches import Batch, host_batch
from lm.devices import target_of
from lm.errors import UsageError
from lm.metrics.hardware import peak_rate, table_peak
from lm.model.cost import flops_per_token
from lm.planner.compile import is_out_of_memory, peak_bytes
from lm.planner.topology import topology_of
from lm.training.aot_compile import options_of
from lm.training.memory import check_training_memory
from tests.bench import attention as attention_bench
from tests.bench import generate as generate_bench
from tests.bench.train import compiled, random_batches, step_seconds
from tests.run_files import HANG_SECONDS, REPOSITORY
from tests.train_runs import bits, copy, steps_there

Rows = Iterator[dict[str, Any]]
EXPERIMENTS = {
    "gpt2_124m": gpt2_124m, "gpt2_355m": gpt2_355m, "gpt2_774m": gpt2_774m, "gpt2_1558m": gpt2_1558m,
}  # fmt: skip
STEPS = 20
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.02}
DETERMINISTIC = "xla_gpu_deterministic_ops=true"
MICRO_BATCHES = 4
TOP_KERNELS = 10


def attention(dry_run: bool) -> Rows:
    """Compare every implementation in bfloat16 with plain attention in float32."""
    names = ("small_255", "small_window") if dry_run else attention_bench.SHAPES
    for shape in names:
        if dry_run or not shape.startswith("small"):
            for row in attention_bench.measure(shape, 0.05 if dry_run else 1.0):
                yield {"ok": row["agrees"]} | {name: row[name] for name in row if name not in ("bench", "device")}


def small(compute_dtype: str = "bfloat16", layers: int = 2) -> tuple[ModelConfig, TrainConfig]:
    """A few layers of a Llama with heads of 64 channels, grouped queries and 128 positions, supported by all
    kernels."""
    base = gpt2_124m.get_config()
    model = dataclasses.replace(
        base.model, vocab_size=512, context_length=128, layers=layers, width=128, heads=2, kv_heads=1, mlp_width=256,
        norm="rmsnorm", position="rope", mlp="swiglu", biases=False, compute_dtype=compute_dtype, scan_layers=False,
    )  # fmt: skip
    optimizer = dataclasses.replace(base.train.optimizer, learning_rate=3e-3, final_learning_rate=3e-4, warmup_steps=5)
    return model, dataclasses.replace(
        base.train, steps=STEPS, batch_size=8, optimizer=optimizer, layout="", micro_batches=1, remat="none",
        loss_chunks=2, xla_options=(), validate_every=0, sample_every=0, log_every=0, spikes=SpikeConfig(),
    )  # fmt: skip


def documents(model: ModelConfig, rows: int, seed: int) -> Batch:
    """Rows of documents of 8 to 64 tokens, each an arithmetic sequence: learnable only by attention within the
    document."""
    generator, shape = np.random.default_rng(seed), (rows, model.context_length + 1)
    tokens, segments = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row in range(rows):
        starts = np.cumsum(generator.integers(8, 65, model.context_length))
        segments[row] = 1 + np.searchsorted(starts, np.arange(shape[1]), side="right")
        first, stride = generator.integers(0, model.vocab_size, (2, shape[1] + 1))
        tokens[row] = (first[segments[row]] + stride[segments[row]] % 8 * np.arange(shape[1])) % model.vocab_size
    return host_batch(tokens[:, :-1], tokens[:, 1:], segments[:, :-1], np.ones((rows, shape[1] - 1), np.float32))


def golden_steps(compute_dtype: str, **changes: Any) -> dict[str, list[float]]:
    """Return losses and gradient norms of STEPS steps. `changes` are fields of TrainConfig."""
    model, train = small(compute_dtype)
    train = dataclasses.replace(train, **changes)
    # By default, accelerators compute float32 products in TF32 or bfloat16.
    with jax.default_matmul_precision("highest" if compute_dtype == "float32" else "default"):
        step, _, make_state = compiled(model, dataclasses.replace(train, batch_size=8 * jax.device_count()))
    state, found = make_state(), {"loss": [], "gradient_norm": []}
    for number in range(STEPS):
        batch = documents(model, 8, number)
        # All devices get the same rows, so that values do not depend on the number of devices.
        state, metrics = step(state, jax.tree.map(lambda x: np.tile(x, (jax.device_count(), 1)), batch))
        for name, values in found.items():
            values.append(float(metrics[name]))
    return found


def golden(dry_run: bool, file: Path) -> Rows:
    """Compare STEPS steps with those of a CPU."""
    stored = json.loads(file.read_text(encoding="utf-8"))["values"]
    for compute_dtype, tolerance in TOLERANCE.items():
        found, expected = golden_steps(compute_dtype), stored[compute_dtype]
        difference = {name: greatest_difference(found[name], expected[name]) for name in found}
        yield {
            "ok": max(difference.values()) <= tolerance, "compute_dtype": compute_dtype, "steps": STEPS,
            "greatest_difference": difference, "tolerance": tolerance, "last_loss": found["loss"][-1],
            "expected_last_loss": expected["loss"][-1],
        }  # fmt: skip


def greatest_difference(found: list[float], expected: list[float]) -> float:
    """The largest relative difference; infinite if a value is not finite."""
    x, y = np.array(found), np.array(expected)
    return float(f"{np.max(np.abs(x - y) / np.abs(y)):.3g}") if np.isfinite(x).all() else float("inf")


def store(file: Path) -> None:
    """Write the golden values. Only the CPU's float32 and bfloat16 give them."""
    values = {compute_dtype: golden_steps(compute_dtype) for compute_dtype in TOLERANCE}
    lines = [f'  "{one}": {json.dumps(values[one])}' for one in values]
    text = f'{{"jax": "{jax.__version__}", "values": {{\n' + ",\n".join(lines) + "\n}}\n"
    file.write_text(text, encoding="utf-8")


def mfu(dry_run: bool, model: str, rows: int, remat: Any, xla_options: bool) -> Rows:
    """Measure speed and memory of a training step of MICRO_BATCHES micro-batches."""
    devices = jax.devices()
    platform = target_of(devices[0]).platform
    peak = table_peak(devices[0].device_kind)  # a TPU's options are for its own chip
    rows_here = [row for row in LAYOUTS.values() if platform != "tpu" or topology_of(row.topology).chip.flops == peak]
    of_layouts = [row.xla_options for row in rows_here if options_of(row.xla_options, platform)]
    options = of_layouts[0] if xla_options and of_layouts else ()
    if xla_options and not options and not dry_run:
        yield {"not_run": f"no row of configs/layouts.py has XLA options for {platform}"}
        return
    if dry_run:
        config, train = small(layers=1)
    else:
        experiment = EXPERIMENTS[model].get_config()
        config, train = experiment.model, experiment.train
    many = len(devices) if model in ("gpt2_774m", "gpt2_1558m") else 1
    config = dataclasses.replace(config, scan_layers=remat != "none")
    train = dataclasses.replace(
        train, layout="", batch_size=rows * MICRO_BATCHES * len(devices), micro_batches=MICRO_BATCHES, remat=remat,
        mesh=MeshConfig(fsdp=many), xla_options=options,
    )  # fmt: skip
    about = {
        "model": model, "rows": rows, "micro_batches": MICRO_BATCHES, "remat": remat, "fsdp": many,
        "xla_options": list(options),
    }  # fmt: skip
    try:
        check_training_memory(config, train, devices)
    except UsageError as error:
        yield about | {"fits": False, "why": str(error)}
        return
    try:
        step, cost, make_state = compiled(config, train)
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        yield about | {"fits": False, "why": str(error).splitlines()[0][:300]}
        return
    memory: Any = step
    planned = peak_bytes(memory.memory_analysis())
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    about |= {"compile_seconds": round(cost.compile_seconds, 1), "planned_peak_bytes": planned}
    if limit is not None and planned > limit:
        yield about | {"fits": False, "why": f"the compiler plans {planned:,} bytes, and a device has {limit:,}"}
        return
    batch = random_batches(config, train.batch_size)
    seconds = step_seconds(step, make_state(), batch, 0.1 if dry_run else 5.0)
    tokens = train.batch_size * config.context_length
    peak = peak_rate(devices, config, tokens // len(devices))
    rate = flops_per_token(config) * tokens / seconds
    measured = (devices[0].memory_stats() or {}).get("peak_bytes_in_use")
    yield about | {
        "fits": True, "tokens_per_second": round(tokens / seconds, 1), "step_ms": round(1e3 * seconds, 2),
        peak.metric: peak.rate and round(rate / peak.rate, 4), "teraflops_per_second": round(rate / 1e12, 3),
        "measured_peak_bytes": measured, "measured_over_planned": measured and round(measured / planned, 3),
    }  # fmt: skip


def middle(dry_run: bool, rows: int = 16) -> tuple[ModelConfig, TrainConfig]:
    """GPT-2 124M with one micro-batch of `rows` sequences per device."""
    model, train = small(layers=1)
    if not dry_run:
        model, rows = dataclasses.replace(gpt2_124m.get_config().model, scan_layers=True), rows * jax.device_count()
    return model, dataclasses.replace(train, batch_size=rows, loss_chunks=2 if dry_run else 8)


def profile(dry_run: bool) -> Rows:
    """Profile three steps by kernel."""
    from jax.profiler import ProfileData

    from lm.metrics.profiling import Profiler

    model, train = middle(dry_run)
    step, _, make_state = compiled(model, train)
    batch, state = random_batches(model, train.batch_size), make_state()
    for _ in range(2):
        state, metrics = jax.block_until_ready(step(state, batch()))
    with tempfile.TemporaryDirectory() as folder:
        profiler, steps = Profiler(Path(folder), 1, 3), 3
        begun = 0.0
        for number in range(1, 1 + steps):
            with profiler.step(number):
                begun = begun or time.perf_counter()
                state, metrics = step(state, batch())
            if number == steps:
                jax.block_until_ready(state)
                seconds = time.perf_counter() - begun
            profiler.after(number, metrics)
        (file,) = Path(folder).rglob("*.xplane.pb")
        times = kernel_times(ProfileData.from_file(str(file)))
    busy = sum(times.values())
    top = sorted(times.items(), key=lambda one: -one[1])[:TOP_KERNELS]
    yield {
        "ok": bool(times), "steps": steps, "step_ms": round(1e3 * seconds / steps, 3),
        "busy_ms": round(busy / 1e6 / steps, 3), "kernels": len(times),
        "top": [
            {"kernel": name, "ms": round(spent / 1e6 / steps, 3), "share": round(spent / busy, 3)}
            for name, spent in top
        ],
    }  # fmt: skip


def kernel_times(data: Any) -> dict[str, float]:
    """{kernel: nanoseconds} on the first device: from the streams of a GPU, "XLA Ops" of a TPU, or operation names
    (hlo_op) of a CPU."""
    planes = {plane.name: plane for plane in data.planes}
    first = next((name for name in sorted(planes) if name.startswith("/device:") and "CUSTOM" not in name), None)
    lines = list(planes[first].lines if first else planes["/host:CPU"].lines)
    wanted = [line for line in lines if line.name.startswith("Stream")]
    wanted = wanted or [line for line in lines if line.name == "XLA Ops"] or ([] if first else lines)
    found: dict[str, float] = {}
    for line in wanted:
        for event in line.events:
            loop = event.name.lstrip("%").startswith(("while", "conditional", "call"))  # contains its kernels
            if not loop and (first or any(name == "hlo_op" for name, _ in event.stats)):
                found[event.name] = found.get(event.name, 0) + event.duration_ns
    return found


def determinism(dry_run: bool) -> Rows:
    """Run the same three steps twice in one process, without and with XLA's deterministic operations."""
    model, train = middle(dry_run)
    on_gpu = target_of(jax.devices()[0]).platform == "cuda"
    milliseconds: dict[tuple[str, ...], float] = {}
    for options in ((), (DETERMINISTIC,)) if on_gpu else ((),):
        step, _, make_state = compiled(model, dataclasses.replace(train, xla_options=options))
        digests = set()
        for _ in range(2):
            state, batch = make_state(), random_batches(model, train.batch_size)
            for _ in range(3):
                state, _ = step(state, batch())
            leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]
            digests.add(hashlib.sha256(b"".join(leaves)).hexdigest())
        batch = random_batches(model, train.batch_size)
        milliseconds[options] = 1e3 * step_seconds(step, state, batch, 0.1 if dry_run else 3.0)
        # XLA guarantees the same bits on CPUs and TPUs, and on GPUs with the option.
        row = {"ok": len(digests) == 1 or (on_gpu and not options), "xla_options": list(options)}
        price = round(milliseconds[options] / milliseconds[()], 4) if options else None
        yield row | {
            "same_bits": len(digests) == 1, "step_ms": round(milliseconds[options], 3), "time_over_default": price
        }  # fmt: skip


def write_run(folder: Path, model: ModelConfig, train: TrainConfig) -> None:
    """Write a run folder that is ready for training, with a tokenizer of characters and random tokens."""
    from lm.storage import write_json
    from lm.tokenizer import save
    from tests.lm.shard_files import random_stream, write_tokens

    tokenizer = generate_bench.characters(model.vocab_size)
    save(tokenizer, folder / "tokenizer")
    (folder / "tokens").mkdir()
    _, owners = random_stream(0, 50_000, 0, 0)
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, len(owners))
    write_tokens(
        folder / "tokens", {"train": [(tokens, owners)]}, model.context_length, fingerprint=tokenizer.fingerprint
    )
    base = fineweb.get_config()
    experiment = dataclasses.replace(
        base, model=model, train=train, tokenizer=dataclasses.replace(base.tokenizer, vocab_size=model.vocab_size),
        evaluate=dataclasses.replace(base.evaluate, stride=64), sample=dataclasses.replace(base.sample, tokens=64),
    )  # fmt: skip
    write_json(folder / "config.json", dataclasses.asdict(experiment))


def train(folder: Path) -> None:
    """Train the run of write_run."""
    from configs.experiment.run_folder import RunFolder
    from lm.training.loop import train

    experiment: Experiment = RunFolder(folder).experiment()
    train(experiment.model, experiment.train, folder)


def start_training(folder: Path) -> subprocess.Popen[bytes]:
    """Start a process that trains the run with the shared compilation cache of the part."""
    command = [sys.executable, "-m", "tests.bench.card", "--train", str(folder)]
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    return subprocess.Popen(command, cwd=REPOSITORY, env=kept | os.environ, stdout=sys.stderr)


def finish_training(folder: Path) -> None:
    if code := start_training(folder).wait(HANG_SECONDS):
        raise RuntimeError(f"training ended with exit code {code}")


def resume(dry_run: bool) -> Rows:
    """Compare a run that is killed after its first checkpoints and resumed with an uninterrupted run."""
    model, config = small(layers=1)
    steps, every = (16, 2) if dry_run else (40, 4)
    config = dataclasses.replace(
        config, steps=steps, checkpoint_every=every, checkpoints_kept=2, xla_options=(DETERMINISTIC,)
    )
    with tempfile.TemporaryDirectory() as root:
        whole, killed = Path(root) / "whole", Path(root) / "killed"
        whole.mkdir()
        write_run(whole, model, config)
        copy(whole, killed)
        finish_training(whole)
        process = start_training(killed)
        while process.poll() is None and not ((killed / "checkpoints").is_dir() and steps_there(killed)):
            time.sleep(0.01)
        process.kill()
        process.wait()
        at = max(steps_there(killed), default=0)
        if process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"the training ended with exit code {process.returncode}")
        if not 0 < at < config.steps:
            raise RuntimeError(f"the run was to be killed after its first checkpoint, and its last one is of step {at}")
        finish_training(killed)
        same = bits(whole) == bits(killed)
        last = max(steps_there(killed))
    yield {"ok": same and last == config.steps, "steps": config.steps, "killed_after_step": at, "same_bits": same}


def generate(dry_run: bool) -> Rows:
    """Measure tokens per second of the engine with greedy decoding."""
    model = small(layers=1)[0] if dry_run else dataclasses.replace(
        gpt2_124m.get_config().model, parameter_dtype="float32", compute_dtype="float32"
    )  # fmt: skip
    for batch in (2,) if dry_run else (1, 32):
        row = generate_bench.measure(model, "bfloat16", batch, *((8, 24, 1) if dry_run else (64, 128, 3)))
        yield {name: row[name] for name in row if name != "bench"}


SLOTS = 16


def serve(dry_run: bool) -> Rows:
    """Measure a server of a model with random parameters (serve_model), and its clients."""
    from tests import server_process
    from tests.bench import serve as serve_bench

    words = ("tests.bench.card", "--serve", *(["--dry-run"] if dry_run else []))
    serving = server_process.ending(server_process.start_command(words))
    clients, tokens, calls = (2, 8, 1) if dry_run else (32, 64, 2)
    row = serve_bench.measure(serving, clients, SLOTS, tokens, calls)
    yield {"ok": row["errors"] == 0} | row


def serve_model(dry_run: bool) -> None:
    """Serve random parameters until SIGTERM. launch.serve needs pyarrow, which is larger than all wheels together."""
    from lm.inference.engine import Engine
    from lm.inference.weights import for_inference
    from lm.model.transformer import Transformer
    from lm.serving.protocol import Limits
    from lm.serving.server import bind, warm_up
    from lm.serving.server import serve as serve_on

    model = small(layers=1)[0] if dry_run else dataclasses.replace(gpt2_124m.get_config().model, context_length=256)
    tokenizer = generate_bench.characters(model.vocab_size)
    weights = for_inference(jax.jit(Transformer, static_argnums=0)(model, jax.random.key(0)), model, "bfloat16")
    engine = Engine(weights, model, tokenizer, slots=SLOTS, decode_steps=8)
    warm_up(engine, every_length=not dry_run)
    bound = bind("127.0.0.1", 0)
    url = "http://{}:{}".format(*bound.getsockname())
    with bound:
        serve_on(
            engine, tokenizer, "random", 0, bound, SLOTS, Limits(context=model.context_length),
            on_start=lambda: print(f"serve: random parameters, on {url}/v1", flush=True),
        )  # fmt: skip

"""Processes are identified by hand, schedulers or Cloud TPU; partial settings are rejected. They meet, agree, and end
if one is missing, wrong or lost."""

import contextlib
import dataclasses
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jax
import pytest

from launch.stages import meeting, processes
from launch.stages.agreement import MAY_DIFFER, facts, jax_settings
from launch.stages.meeting import listen, meet
from launch.stages.parent import reason_in
from launch.stages.processes import Found, find
from lm.errors import AbsentPeerError, InputError, PeerError, UsageError
from lm.resilience.multihost import first_difference
from tests.corpus import tiny_experiment
from tests.loopback_server import listening, send
from tests.run_files import HANG_SECONDS, QUICK, REPOSITORY
from tests.train_process import free_port, told_by

NAMES = ("COORDINATOR", "NUM_PROCESSES", "PROCESS_ID", "SLURM_", "OMPI_", "TPU_", "MEGASCALE_")


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path) -> None:
    """An environment without this machine's variables, and an empty folder of PCI devices."""
    for name in list(os.environ):
        if any(part in name for part in NAMES):
            monkeypatch.delenv(name)
    monkeypatch.setattr(processes, "PCI_DEVICES", tmp_path)
    processes.by_tpu_metadata.cache_clear()


def found_by(monkeypatch, variables: str) -> Found:
    for one in variables.split():
        monkeypatch.setenv(*one.split("="))
    return find()


def test_without_settings_there_is_one_process():
    assert find() == Found(0, 1, "nothing")


@pytest.mark.parametrize(
    ("variables", "index", "count", "address"),
    [
        ("JAX_COORDINATOR_ADDRESS=h:1 NUM_PROCESSES=4 PROCESS_ID=3", 3, 4, "h:1"),
        ("JAX_COORDINATOR_ADDRESS=h:1 JAX_NUM_PROCESSES=4 JAX_PROCESS_ID=0", 0, 4, "h:1"),
        ("COORDINATOR_ADDRESS=h COORDINATOR_PORT=6666 NUM_PROCESSES=2 PROCESS_ID=1", 1, 2, "h:6666"),  # Kubeflow
        ("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2", 2, 4, None),
        ("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2 JAX_COORDINATOR_ADDRESS=h:1", 2, 4, None),
        ("JAX_COORDINATOR_ADDRESS=h:1 NUM_PROCESSES=2 PROCESS_ID=1 SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2", 1, 2, "h:1"),
        ("SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0", 0, 1, None),
        ("OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_RANK=1", 1, 3, None),
        ("TPU_WORKER_HOSTNAMES=a,b,c,d TPU_WORKER_ID=3", 3, 4, None),
        ("TPU_WORKER_HOSTNAMES=a,b TPU_WORKER_ID=1 MEGASCALE_NUM_SLICES=3 MEGASCALE_SLICE_ID=2", 5, 6, None),
        ("TPU_WORKER_HOSTNAMES=localhost TPU_WORKER_ID=0", 0, 1, None),
        ("NUM_PROCESSES=1 TPU_WORKER_HOSTNAMES=a,b TPU_WORKER_ID=1", 0, 1, None),
        ("NUM_PROCESSES=1 SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2", 0, 1, None),
    ],
)
def test_sources_of_the_process_index_in_order_of_precedence(monkeypatch, variables, index, count, address):
    found = found_by(monkeypatch, variables)
    assert (found.index, found.count, found.address) == (index, count, address)
    assert (processes.process_index(), processes.process_count()) == (index, count)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("JAX_COORDINATOR_ADDRESS=h:1", r"ADDRESS=h:1 is set, but NUM_PROCESSES and PROCESS_ID are not\. .*unset all"),
        ("NUM_PROCESSES=2", r"NUM_PROCESSES=2 is set, but JAX_COORDINATOR_ADDRESS and PROCESS_ID are not"),
        ("PROCESS_ID=0", r"PROCESS_ID=0 is set, but JAX_COORDINATOR_ADDRESS and NUM_PROCESSES are not"),
        ("NUM_PROCESSES=2 PROCESS_ID=0", r"NUM_PROCESSES=2, PROCESS_ID=0 is set, but JAX_COORDINATOR_ADDRESS is not"),
        ("NUM_PROCESSES=2 PROCESS_ID=2 JAX_COORDINATOR_ADDRESS=h:1", r"NUM_PROCESSES is '2'.*PROCESS_ID is '2'"),
        ("NUM_PROCESSES=x PROCESS_ID=0 JAX_COORDINATOR_ADDRESS=h:1", r"NUM_PROCESSES is 'x'.*PROCESS_ID is '0'"),
        ("NUM_PROCESSES=2 PROCESS_ID=0 COORDINATOR_ADDRESS=h", r"COORDINATOR_ADDRESS='h' has no port\. Give HOST:PORT"),
        ("SLURM_STEP_NUM_TASKS=4", r"SLURM_STEP_NUM_TASKS is '4'.*SLURM_PROCID is 'not set'.*set NUM_PROCESSES=1"),
        ("TPU_WORKER_HOSTNAMES=a,b", r"TPU_WORKER_ID is 'not set'"),
        ("TPU_WORKER_HOSTNAMES=a,b TPU_WORKER_ID=0 MEGASCALE_NUM_SLICES=2 MEGASCALE_SLICE_ID=2", r"SLICE_ID is"),
    ],
)  # fmt: skip
def test_partial_or_inconsistent_settings_are_rejected_with_both_and_a_remedy(monkeypatch, variables, message):
    with pytest.raises(UsageError, match=message):
        found_by(monkeypatch, variables)


@pytest.mark.parametrize(
    ("variables", "whole_host"),
    [
        ("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2 SLURM_STEP_TASKS_PER_NODE=1(x4)", True),
        ("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2 SLURM_STEP_TASKS_PER_NODE=2(x2)", False),
        ("SLURM_STEP_NUM_TASKS=16 SLURM_PROCID=2 SLURM_STEP_TASKS_PER_NODE=16", False),
        ("OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=1", True),
    ],
)
def test_the_only_process_of_a_host_takes_all_its_devices(monkeypatch, variables, whole_host):
    """Under a scheduler, JAX gives each process one device by default."""
    assert found_by(monkeypatch, variables).whole_host == whole_host


ATTRIBUTES = {
    "agent-worker-number": "1",
    "worker-network-endpoints": "unknown:unknown:10.0.0.1,unknown:unknown:10.0.0.2",
    "tpu-env": "ACCELERATOR_TYPE: 'v5p-16'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n",
}


@pytest.fixture
def metadata_server(monkeypatch) -> Generator[dict[str, str]]:
    """The metadata server of a TPU VM, on loopback; its attributes may be changed."""
    attributes = dict(ATTRIBUTES)

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        name = request.path.removeprefix("/computeMetadata/v1/instance/attributes/")
        there = name in attributes and request.headers["Metadata-Flavor"] == "Google"
        send(request, 200 if there else 404, {}, attributes[name].encode() if there else b"")

    with listening(answer) as address:
        monkeypatch.setenv("GCE_METADATA_IP", address.removeprefix("http://"))
        yield attributes


def test_a_tpu_vm_reads_its_slice_and_its_place_in_it(monkeypatch, tmp_path, metadata_server):
    assert find().count == 1  # no Google hardware in this machine
    card = tmp_path / "0000:00:05.0"
    card.mkdir()
    (card / "vendor").write_text("0x1ae0\n")
    processes.by_tpu_metadata.cache_clear()
    found = find()
    assert (found.index, found.count, found.by) == (3, 4, "Cloud TPU (the metadata server)")
    metadata_server.clear()  # a virtual machine without TPUs
    processes.by_tpu_metadata.cache_clear()
    assert find().count == 1


def test_a_scheduler_without_a_coordinator_address_is_an_error_with_its_remedy():
    code = (
        "from launch.stages.command import handle_cli_errors\n"
        "from launch.stages.processes import initialize_distributed\n"
        "with handle_cli_errors('t'): initialize_distributed()"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, text=True, capture_output=True,
        env=os.environ | QUICK | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"},
    )  # fmt: skip
    assert process.returncode == UsageError.exit_code
    assert "process 1 of 2 (Slurm" in process.stderr and "Set JAX_COORDINATOR_ADDRESS=HOST:PORT" in process.stderr
    assert "Traceback" not in process.stderr


def pass_time(monkeypatch, admitted: int) -> None:
    """Let an hour pass for process 0 after it has read the lines of that many connections."""
    admit, calls = meeting.admit, []
    monkeypatch.setattr(meeting, "admit", lambda *given: (admit(*given), calls.append(given))[0])
    clock = {"monotonic": lambda: time.monotonic() + 3600 * (len(calls) >= admitted)}
    monkeypatch.setattr(meeting, "time", SimpleNamespace(**vars(time) | clock))
    monkeypatch.setattr(meeting, "READ_SECONDS", HANG_SECONDS)


def meet_all(*processes: tuple[int, int], timeout: float = HANG_SECONDS) -> list[InputError | None]:
    """The error of each of the (index, count) processes; they are threads here."""
    address = f"localhost:{free_port()}"

    def one(index: int, count: int) -> InputError | None:
        try:
            meet(index, count, address, timeout)
        except InputError as error:
            return error
        return None

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(one, *zip(*processes, strict=True)))


def test_all_processes_meet_in_any_order():
    assert meet_all((2, 4), (0, 4), (3, 4), (1, 4)) == [None] * 4


@pytest.mark.parametrize(
    ("processes", "error", "message"),
    [
        (
            [(0, 4), (1, 4)],
            AbsentPeerError,
            "After 600 s 2 of 4 processes are connected; missing: processes 2, 3. See",
        ),
        ([(1, 4)], AbsentPeerError, "After 1 s process 1 cannot reach process 0: localhost:"),
        ([(0, 3), (1, 3), (1, 3)], UsageError, "PROCESS_ID is 1 in two processes: pid "),
        ([(0, 2), (1, 3)], UsageError, "NUM_PROCESSES is 3 in process 1 (pid "),
    ],
)
def test_a_missing_duplicate_or_miscounted_process_is_named_in_all(monkeypatch, processes, error, message):
    monkeypatch.setattr(meeting, "ANNOUNCE_SECONDS", 0.5)
    if error is AbsentPeerError:
        pass_time(monkeypatch, 1)
    errors = meet_all(*processes, timeout=HANG_SECONDS if len(processes) > 1 else 1.0)
    assert {type(one) for one in errors} == {error} and all(str(one).startswith(message) for one in errors)


def test_a_second_process_0_is_rejected():
    port = free_port()
    with contextlib.closing(listen(port, 2)), pytest.raises(UsageError, match=r"PROCESS_ID is 0 in two processes"):
        meet(0, 2, f"localhost:{port}", 60.0)


def test_a_process_that_left_early_and_a_health_check_are_not_counted(monkeypatch):
    pass_time(monkeypatch, 3)
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(meet, 0, 3, f"localhost:{port}", HANG_SECONDS)
        for line in (
            b"GET / HTTP/1.1\r\n\r\n",
            b'{"index": 1, "count": 3, "name": "x"}\n',
            b'{"index": -1, "count": 3}\n',
        ):
            connection = None
            while not connection:
                with contextlib.suppress(ConnectionRefusedError):
                    connection = socket.create_connection(("localhost", port))
            with connection:
                connection.sendall(line)
        with pytest.raises(PeerError, match=r"1 of 3 processes are connected; missing: processes 1, 2\."):
            waits.result()


@pytest.mark.parametrize("answer", [b"\x00\x00\x12\x04\xff", b"HTTP/1.1 400\r\n", b"[]\n", b"{}\n", b""])
def test_the_answer_of_another_program_is_not_process_0(answer):
    """For example, JAX's service of a run whose process 0 has not yet noticed that this process restarted."""

    def answer_all(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as connection:
                    connection.sendall(answer)

    with contextlib.closing(listen(0, 2)) as listener:
        port = listener.getsockname()[1]
        threading.Thread(target=answer_all, args=(listener,), daemon=True).start()
        with pytest.raises(PeerError, match=f"localhost:{port} (belongs to another|does not answer)"):
            meet(1, 2, f"localhost:{port}", 0.1)
        listener.shutdown(socket.SHUT_RDWR)


def test_an_unresolvable_host_is_an_error_except_in_kubernetes(monkeypatch):
    monkeypatch.setattr(meeting, "NOTICE_SECONDS", 0.5)
    with pytest.raises(
        InputError, match=r"the name no-host\.invalid cannot be resolved .* Correct JAX_COORDINATOR_ADDR"
    ):
        meet(1, 2, "no-host.invalid:1", 60.0)
    monkeypatch.setenv(meeting.LATE_NAMES, "10.0.0.1")
    with pytest.raises(PeerError, match=r"After 1 s process 1 cannot reach process 0: the name no-host"):
        meet(1, 2, "no-host.invalid:1", 1.0)


JOIN = """
import os, signal, sys
from launch.stages import meeting
from launch.stages.parent import run_in_child
from launch.stages.processes import find
from lm.errors import InputError

meeting.READ_SECONDS = meeting.ANNOUNCE_SECONDS = 600.0
run_in_child("test")
found = find()
if found.index == int(sys.argv[1]):
    %s
try:
    meeting.meet(found.index, found.count, found.address, 600.0)
except InputError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(
    ("victim", "end", "code", "said"),
    [
        pytest.param(0, "raise RuntimeError('no module')", 1, "ended with exit code 1", marks=pytest.mark.slow),
        pytest.param(0, "os.kill(os.getpid(), 9)", 137, "was ended by SIGKILL", marks=pytest.mark.slow),
        pytest.param(2, "raise RuntimeError('no module')", 1, "ended with exit code 1", marks=pytest.mark.slow),
        (2, "os.kill(os.getpid(), 9)", 137, "was ended by SIGKILL"),
    ],
)
def test_a_process_that_fails_before_the_join_ends_the_others_at_once_with_its_name(victim, end, code, said):
    """The others may start earlier or later: they wait up to train.join_timeout for a process that sends nothing."""
    for index, (ended, output) in enumerate(together(JOIN % end, [str(victim)] * 3)):
        assert ended == (code if index == victim else PeerError.exit_code), output
        if index != victim:
            assert re.fullmatch(rf"Process {victim} \(pid \d+ on .*\) {said} before all .* See its output\.\n", output)


DURING = """
import os, signal, sys
import jax
from launch.stages.command import handle_cli_errors
from launch.stages.parent import run_in_child
from launch.stages.processes import ending_together, find, initialize_distributed
from lm.resilience.multihost import settle

def end():
    if find().index == int(sys.argv[1]):
        %s

with ending_together(), handle_cli_errors("test"):
    run_in_child("test")
    when = %r
    if when == "connecting":
        initialize = jax.distributed.initialize
        jax.distributed.initialize = lambda *given, **named: (end(), initialize(*given, **named))
    initialize_distributed(60.0)
    settle("begin", None, list)
    if when == "talking":
        end()
    settle("next", None, list)
    if when == "computing":
        end()
    from jax.experimental.multihost_utils import process_allgather
    process_allgather(jax.numpy.ones(3))
"""
RAISE, KILL = "raise ValueError('no such block')", "os.kill(os.getpid(), 9)"


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize(
    ("when", "end"),
    [("connecting", KILL), ("talking", RAISE), ("talking", KILL), ("computing", RAISE), ("computing", KILL)],
)
def test_whenever_a_process_fails_after_the_join_the_others_end_with_its_name(victim, when, end):
    outcomes = together(DURING % (end, when), [str(victim)] * 2)
    assert outcomes[victim][0] == (1 if end == RAISE else 137), outcomes[victim][1]
    code, output = outcomes[1 - victim]
    assert code == PeerError.exit_code, output
    (line,) = (line for line in output.splitlines() if line.startswith(("test: ", "processes: process ")))
    named = "another process was lost after the join" if when == "connecting" else f"process {victim} "
    assert f" ends, because {named}" in line
    assert "Check failure" not in output


def together(code: str, arguments: Sequence[object], *variables: dict[str, str]) -> list[tuple[int, str]]:
    """(exit code, output) of processes of one job that run the code, each with its argument and variables."""
    port, count = free_port(), len(arguments)
    group = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(argument)], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=os.environ | QUICK | own | told_by("hand", index, count, port),
        )
        for index, (argument, own) in enumerate(zip(arguments, variables or [{}] * count, strict=True))
    ]  # fmt: skip
    outputs = [process.communicate(timeout=HANG_SECONDS)[0] for process in group]
    return [(process.returncode, output) for process, output in zip(group, outputs, strict=True)]


AGREE = """
import sys
from pathlib import Path
from launch.stages import agreement
from launch.stages.command import handle_cli_errors
from launch.stages.parent import run_in_child
from launch.stages.processes import ending_together, initialize_distributed
from tests.corpus import tiny_experiment

agreement.NONCE_SECONDS = 0.5
with ending_together(), handle_cli_errors("test"):
    run_in_child("test")
    initialize_distributed()
    agreement.agree_on(tiny_experiment(), Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_processes_with_different_flags_and_run_folders_end_with_both_values(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "stages").mkdir(parents=True)
    flags = "--xla_cpu_parallel_codegen_split_count=1", "--xla_cpu_parallel_codegen_split_count=2"
    variables = ({"XLA_FLAGS": one} for one in flags)
    for code, output in together(AGREE, [tmp_path / "a", tmp_path / "b"], *variables):
        assert code == UsageError.exit_code, output
        (line,) = (line for line in output.splitlines() if line.startswith("test: "))  # JAX may log, too
        assert "Traceback" not in output
        host = socket.gethostname()
        assert line.startswith(
            f"test: process 1 on {host}: stages/nonce, which process 0 wrote to the shared run folder, "
        )
        assert "No such file" in line and f"; XLA_FLAGS is '{flags[1]}', but '{flags[0]}' in process 0" in line


SETTINGS = {"JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_NUM_CPU_DEVICES": "2", "JAX_THREEFRY_PARTITIONABLE": "0"}


@pytest.mark.slow
def test_processes_with_different_jax_settings_end_with_both_values_before_jax_starts_its_devices(tmp_path):
    """Starting the devices exchanges data, for which processes with other devices or collectives may wait forever."""
    (tmp_path / "stages").mkdir()
    for code, output in together(AGREE, [tmp_path] * 2, {}, SETTINGS):
        assert code == UsageError.exit_code, output
        (line,) = (line for line in output.splitlines() if line.startswith("test: "))
        host = socket.gethostname()
        assert line == (
            f"test: process 1 on {host}: jax_default_prng_impl is 'rbg', but 'threefry2x32' in process 0; "
            "jax_num_cpu_devices is 2, but -1 in process 0; jax_threefry_partitionable is False, but True in process "
            f"0. All processes of a run must have the same; process 0 is on {host}."
        )


def test_every_setting_of_jax_is_compared_unless_it_may_differ():
    may_differ = [name for names in MAY_DIFFER.values() for name in names]
    assert {*may_differ} < {*jax.config.values} and len({*may_differ}) == len(may_differ)
    compared = jax_settings()
    assert {*compared} == {*jax.config.values} - {*may_differ} and json.loads(json.dumps(compared)) == compared


def test_facts_have_every_field_of_the_config_shards_libraries_code_and_flags(tmp_path, monkeypatch):
    experiment = tiny_experiment()
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--a=1")
    before = facts(experiment, tmp_path)
    assert before["LIBTPU_INIT_ARGS"] == "--a=1" and before["version of jax"] and before["train.layout"] == ""
    changed = dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, steps=99, layout="v6e:8x8"))
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens/manifest.json").write_text("{}")
    after = facts(changed, tmp_path)
    named = {name for name in before if before[name] != after[name]}
    assert named == {"train.steps", "train.layout", "SHA-256 of the shards' manifest"}
    said = first_difference([["a", before], ["b", before], ["c", after]])
    assert said.startswith("process 2 on c: ") and "train.steps is 99, but 12 in process 0" in said
    assert said.endswith("; process 0 is on a.") and not first_difference([["a", before], ["b", before]])


PARENT = """
import os, signal, sys, time
from launch.stages.parent import run_in_child
run_in_child("test")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print(os.getpid(), flush=True)
print("to stderr", file=sys.stderr)
time.sleep(600)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGKILL))]
)
def test_a_parent_forwards_signals_streams_and_exit_codes_and_ends_with_its_child(number):
    parent = subprocess.Popen(
        [sys.executable, "-u", "-c", PARENT], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | told_by("hand", 1, 2, 1),
    )  # fmt: skip
    assert parent.stdout is not None and parent.stderr is not None
    child = int(parent.stdout.readline())
    assert parent.stderr.readline() == "to stderr\n" and child != parent.pid
    parent.send_signal(number)
    _, error = parent.communicate(timeout=HANG_SECONDS)  # after the child has closed its end of the streams
    assert parent.returncode == {signal.SIGTERM: 7, signal.SIGINT: 130, signal.SIGKILL: -9}[number], error


def test_a_single_process_has_no_parent():
    code = "import os; from launch.stages.parent import *; p = os.getpid(); run_in_child(''); print(p == os.getpid())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "True\n" and not done.stderr


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("E1] The following tasks are unhealthy (stopped sending heartbeats):\n2\n3\nThe", "processes 2, 3 ended"),
        ("The first task at the barrier: 0. Some timed out task names:\n1\n ", "process 1 ended, hangs"),
        ("Some timed out task names:\n/job:jax_worker/replica:0/task:1\n\n", "process 1 ended, hangs"),
        ("absl::Status: UNAVAILABLE: Failed to send RPC to coordination service. Either the", "process 0 ended, hangs"),
        ("absl::Status: INTERNAL: Failed to disconnect: INTERNAL: Shutdown barrier has failed.", "another process was"),
        ("absl::Status: DEADLINE_EXCEEDED: Deadline Exceeded\nstack", "another process was lost after the join"),
        ("absl::Status: INTERNAL: something else\nstack", "JAX reports INTERNAL: something else"),
    ],
)  # fmt: skip
def test_lost_processes_are_parsed_from_jax_logs(log, reason):
    assert reason_in(log).startswith(reason) and not reason_in("terminate called")

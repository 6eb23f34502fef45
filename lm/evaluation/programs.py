"""Run Python programs that a model wrote, in a process that can compute and read files, and nothing else.

A seccomp filter allows only the system calls in CALLS, and opening files only for reading: the process cannot change
files, start processes or threads, send signals, use the network, or lift its limits. It inherits no environment and no
open files, and its output is discarded: only whether it passed is returned. It can read what the user can read, also
about other processes (/proc). `main` runs in that process, so this file imports only the standard library.
"""

import ctypes
import math
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SECONDS = 3
"""CPU time of a program; the same as the time limit of Hugging Face's code_eval."""
WALL_SECONDS = 15
LIMITS = {
    resource.RLIMIT_CPU: SECONDS, resource.RLIMIT_AS: 2**30, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0
}  # fmt: skip
PASSED = 99
"""Exit code of a program that ran to its end."""
PROCESSES = 4
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""{machine: (its number in Linux's audit.h, its column in CALLS)}"""
CALLS = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "newfstatat": (262, 79), "lseek": (8, 62),
    "pread64": (17, 67), "getdents64": (217, 61), "getcwd": (79, 17), "faccessat": (269, 48), "access": (21, 48),
    "readlinkat": (267, 78), "readlink": (89, 78), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "mremap": (25, 216), "brk": (12, 214), "futex": (202, 98), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "restart_syscall": (219, 128), "getrusage": (98, 165), "times": (100, 153),
    "getrandom": (318, 278), "getpid": (39, 172), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175),
    "uname": (63, 160), "sysinfo": (99, 179), "rt_sigreturn": (15, 139),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
"""{allowed system call: (its number on x86_64, on aarch64)}"""
OPENAT = (257, 56)
CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def pass_at_k(references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int]) -> dict[str, float]:
    """Return {"pass@1": ...}: the estimated probability that at least one of k programs passes the tests of its
    problem (arXiv:2107.03374), averaged over problems. `references` are the tests of each problem, `predictions` its
    programs."""
    found: dict[str, list[float]] = {f"pass@{number}": [] for number in k}
    for tests, programs in zip(references, predictions, strict=True):
        with ThreadPoolExecutor(PROCESSES) as pool:
            wrong = len(programs) - sum(pool.map(passes, (f"{program}\n{tests}" for program in programs)))
        for number in k:
            found[f"pass@{number}"].append(1 - math.comb(wrong, number) / math.comb(len(programs), number))
    return {name: sum(values) / len(values) for name, values in found.items()}


def build_predictions(answers: Sequence[Sequence[str]], docs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Join the problem's beginning of a program and each continuation."""
    return [[doc["prompt"] + one for one in some] for some, doc in zip(answers, docs, strict=True)]


def build_predictions_instruct(answers: Sequence[Sequence[str]], docs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Join the problem's beginning of a program and each continuation, up to the end of its Markdown block."""
    return build_predictions([[one.partition("```")[0] for one in some] for some in answers], docs)


def passes(program: str) -> bool:
    """Run a program in a separate process; return whether it ends in time without an exception. A program that ends
    its process with PASSED passes too. It always fails if the process cannot be restricted (another system than Linux,
    or another processor than those in ARCHITECTURES)."""
    try:
        done = subprocess.run(
            [sys.executable, "-IB", __file__], input=program.encode(errors="replace"), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={"OPENBLAS_NUM_THREADS": "1"}, cwd="/", start_new_session=True,
            timeout=2 * WALL_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == PASSED


def main() -> None:
    """Run the program on stdin with all restrictions."""
    program = sys.stdin.buffer.read()
    for limit, value in LIMITS.items():
        resource.setrlimit(limit, (value, value))
    signal.alarm(WALL_SECONDS)
    restrict_system_calls()
    try:
        exec(compile(program, "program", "exec"), {"__name__": "__main__"})
    except BaseException:
        os._exit(1)
    os._exit(PASSED)


def restrict_system_calls() -> None:
    """Refuse system calls of this process other than CALLS with EPERM. Raises OSError or KeyError if that is
    impossible."""
    audit, column = ARCHITECTURES[os.uname().machine]
    load, equal, any_bit, give = 0x20, 0x15, 0x45, 0x06  # instructions: (code, jump if true, jump if false, operand)
    count = len(CALLS)
    steps = [
        (load, 0, 0, 4), (equal, 0, count + 5, audit), (load, 0, 0, 0),
        *((equal, count + 2 - at, 0, numbers[column]) for at, numbers in enumerate(CALLS.values())),
        (equal, 0, 3, OPENAT[column]), (load, 0, 0, 32), (any_bit, 1, 0, CHANGES),
        (give, 0, 0, 0x7FFF0000), (give, 0, 0, 0x00050001),
    ]  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges = libc.prctl(38, ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3)
    if no_new_privileges or libc.prctl(22, ctypes.c_ulong(2), struct.pack("HP", len(steps), ctypes.addressof(code))):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    main()

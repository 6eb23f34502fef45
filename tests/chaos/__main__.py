"""Fault injection, two hours for all rows: python -m tests.chaos [NAME ...] [--seed 0] [--scale 1]

Prints a JSON line for each row, and `N passed, N failed`; exits with code 1 if a row failed.
"""

from tests.chaos import data_stages, hostile_inputs, serve, sources, training, warc
from tests.chaos.runner import Row, run_rows

SAME_RUN = "parameters, optimizer and metrics are those of an undisturbed run"
ROWS = {
    "pretrain": Row(
        data_stages.pretrain, 20, "launch.pretrain", "SIGKILL at random moments", "data and parameters are equal"
    ),
    "sources": Row(
        sources.streams, 100, "a file streamed in ranges", "responses fail at random",
        "one version of the file to the byte, or StorageError",
    ),
    "warc": Row(warc.hostile, 1, "the WARC reader", "bombs and endless headers", "2 s, 512 MB"),
    "extraction": Row(
        hostile_inputs.pages, 1, "every extraction engine", "hostile pages of 1 and 2 MB", "2 s, 512 MB, linear"
    ),
    "models": Row(hostile_inputs.models, 1, "readers of models", "hostile files", "3 s more than a good file"),
    "serve": Row(
        serve.bodies, 10_000, "launch.serve", "fuzzed bodies, no HTTP, cut connections",
        "no 5xx, no growth of memory, the same answer at the end",
    ),
    "training: SIGKILL": Row(training.kills, 100, "training", "SIGKILL at random moments", SAME_RUN),
    "training: SIGTERM": Row(
        training.terms, 50, "training", "SIGTERM at random steps", "exit code 0 in 10 s, one step lost; " + SAME_RUN
    ),
    "training: saves": Row(
        training.saves, 200, "saves of 9 MB", "SIGKILL", "no checkpoint is damaged or lost"
    ),
    "training: two processes": Row(training.pair, 1, "two supervised processes", "SIGKILL of one", SAME_RUN),
    "training: supervised": Row(
        training.supervised, 1, "launch.supervise", "SIGKILL every 3 minutes", "95 % of the time is effective"
    ),
    "training: full disk": Row(
        training.full_disk, 1, "training", "a full disk", "a clear message, whole checkpoints; resumed, " + SAME_RUN
    ),
    "training: read-only disk": Row(
        training.read_only_disk, 1, "training", "a read-only disk", "the same"
    ),
}  # fmt: skip
"""{name: check, count, process under test, injected fault, requirement}."""

if __name__ == "__main__":
    run_rows(ROWS)

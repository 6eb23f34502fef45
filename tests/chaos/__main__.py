"""Fault injection, two hours for all rows: python -m tests.chaos [NAME ...] [--seed 0] [--scale 1] [--run RUN]

Prints a JSON line for each row, and `N passed, N failed`; exits with code 1 if a row failed.
"""

from tests.chaos import data_stages, hostile_inputs, serve, sources, training, warc
from tests.chaos.runner import Row, run_rows

SAME_RUN = "parameters, optimizer and metrics are those of an undisturbed run"
ROWS = {
    "pretrain": Row(
        data_stages.pretrain, 20, "launch.pretrain", "SIGKILL at random moments", "data and parameters are equal"
    ),
    "documents": Row(
        data_stages.documents, 50, "launch.extract_texts, launch.prepare_documents", "SIGKILL at random moments",
        "equal bytes; no finished file is made again",
    ),
    "units": Row(
        data_stages.units, 20, "a step of 2,000 units", "60 units kill their process, read without end or are damaged",
        "the 60 are named with their causes; the others have equal bytes",
    ),
    "sources": Row(
        sources.trials(sources.random_stream), 100, "a file streamed in ranges", "responses fail at random",
        "one version of the file to the byte, or StorageError",
    ),
    "warc: single faults": Row(
        warc.single_faults, 300, "the WARC reader", "one fault in each copy of a file",
        "untouched records come out, no altered one does, the rest is counted",
    ),
    "warc: fuzzed": Row(warc.fuzzed_files, 10_000, "the WARC reader", "fuzzed files", "every record is accounted for"),
    "warc: hostile": Row(warc.hostile, 1, "the WARC reader", "bombs and endless headers", "2 s, 512 MB"),
    "texts": Row(
        hostile_inputs.texts, 1, "every function of a text", "hostile texts of 1 MB",
        "at most 13 times the time of a loop over words",
    ),
    "extraction": Row(
        hostile_inputs.pages, 1, "every extraction engine", "hostile pages of 1 and 2 MB", "2 s, 512 MB, linear"
    ),
    "serve": Row(
        serve.bodies, 10_000, "launch.serve", "fuzzed bodies, no HTTP, slow and cut connections",
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
    "training: checkpoint bits": Row(
        training.checkpoint_flips, 500, "restoring", "one bit of a checkpoint", "it is named; the one before loads"
    ),
    "training: shard bits": Row(
        training.shard_flips, 200, "reading shards", "one bit of a shard", "the shard is named, nothing is read wrongly"
    ),
    "training: gradients": Row(
        training.skipped_steps, 1, "training", "NaN, infinite and 1e6-fold gradients", "as if the steps were skipped"
    ),
    "training: meshes": Row(
        training.meshes, 1, "training", "another mesh every quarter", "losses within 1e-5, the same order of data"
    ),
    "training: full disk": Row(
        training.full_disk, 1, "training", "a full disk", "a clear message, whole checkpoints; resumed, " + SAME_RUN
    ),
    "training: read-only disk": Row(
        training.read_only_disk, 1, "training", "a read-only disk", "the same"
    ),
    "training: failed saves": Row(
        training.failed_saves, 3, "two processes", "saves fail in one of them", "both report it; " + SAME_RUN
    ),
    "training: moves": Row(
        training.moves, 12, "1, 2 and 4 processes", "SIGKILL or SIGTERM, then another mesh", "losses within 1e-5"
    ),
}  # fmt: skip
"""{name: check, count, process under test, injected fault, requirement}."""

if __name__ == "__main__":
    run_rows(ROWS)

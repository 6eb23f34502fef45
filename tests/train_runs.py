"""Results that must be equal in two run folders after training: all bits of the state, and all logged rows."""

import json
import re
import shutil
from pathlib import Path

MEASURED = re.compile("second|mfu|share|bytes|step_flops|goodput|slowest")


def copy(source: Path, run: Path, *without: int) -> Path:
    """`run`, a copy of the run folder `source` in place of any existing files, without the checkpoints of these steps:
    as if it had been killed before they were complete."""
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(source, run)
    return forget(run, *without)


def forget(run: Path, *steps: int) -> Path:
    """Delete the checkpoints of these steps."""
    for step in steps:
        shutil.rmtree(run / f"checkpoints/{step}")
    return run


def steps_there(run: Path) -> list[int]:
    """Checkpoints that are not being written or deleted."""
    from lm.checkpoints.manifest import steps_in

    return steps_in(run / "checkpoints")


def bits(run: Path, step: int | None = None) -> dict[str, bytes]:
    """{name: bits} of every array of a checkpoint, by default the newest: parameters, step, optimizer, guard."""
    import numpy as np
    import orbax.checkpoint as ocp
    from etils import epath  # names that Orbax takes for a path

    from lm.checkpoints.manifest import verify

    folder = epath.Path(run.absolute()) / "checkpoints" / str(max(steps_there(run)) if step is None else step)
    verify(Path(folder))
    found = {}
    for item in ("model", "training"):
        handler = ocp.PyTreeCheckpointHandler()
        layout = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in handler.metadata(folder / item).tree}
        arrays = handler.restore(folder / item, restore_args=layout)
        found |= {f"{item}.{name}": np.asarray(array).tobytes() for name, array in arrays.items()}
    return found


def rows(run: Path, name: str = "metrics.jsonl") -> list[dict]:
    """All rows of a file of JSON lines."""
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def told(run: Path) -> list[dict]:
    """The rows of metrics.jsonl without measurements, and without the rows that describe the run."""
    logged = [row for row in rows(run) if "run" not in row]
    return [{name: value for name, value in row.items() if not MEASURED.search(name)} for row in logged]

"""Results that must be equal in two run folders after training: all bits of the state, and all logged rows."""

import json
import re
import shutil
from pathlib import Path

MEASURED = re.compile("second|mfu|share|bytes|step_flops|goodput|slowest")


def copy(source: Path, run: Path) -> Path:
    """`run`, a copy of the run folder `source` that replaces any existing files."""
    shutil.rmtree(run, ignore_errors=True)
    return Path(shutil.copytree(source, run))


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


def told(run: Path) -> list[dict]:
    """The rows of metrics.jsonl without measurements, and without the rows that describe the run."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = [row for row in rows if "run" not in row]
    return [{name: value for name, value in row.items() if not MEASURED.search(name)} for row in logged]

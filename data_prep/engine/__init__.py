"""Units of work, and the executors that run them: processes, Ray, Beam, array jobs (docs/engines.md).

    step = Step("texts", units, work)            # a name, the frozen list, a picklable work(unit, space) -> counts
    markers = run_step(step, engine, folder)     # runs unfinished units; {name of the unit: Marker}

May import: data_prep.config, data_prep.parquet.
"""

from data_prep.engine.progress import OnProgress, Progress
from data_prep.engine.run import run_step
from data_prep.engine.units import Counts, Failure, Marker, Step, Unit, Workspace, identity_of, run_unit

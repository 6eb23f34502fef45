"""A profile of chosen steps, for XProf or Perfetto."""

import contextlib
from pathlib import Path

import jax


class Profiler:
    """Traces `steps` steps from step `begin` on (0: none) into `folder`, one trace a run of the process."""

    def __init__(self, folder: Path, begin: int, steps: int):
        self.folder, self.wanted = folder, range(begin, begin + steps) if begin else range(0)
        self.tracing = False

    def step(self, step: int) -> contextlib.AbstractContextManager:
        """What a step runs in: the trace names it and its number."""
        if step in self.wanted and not self.tracing:
            jax.profiler.start_trace(self.folder)
            self.tracing = True
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def after(self, step: int, result: object) -> str:
        """Behind the last step, when its `result` is there, ends the trace; says where it lies, or is empty."""
        if not self.tracing or step + 1 in self.wanted:
            return ""
        jax.block_until_ready(result)
        self.close()
        (trace,) = sorted(self.folder.glob("plugins/profile/*/*.trace.json.gz"))[-1:]
        return (
            f"a profile up to step {step:,} lies in {self.folder}. Look at it with `xprof {self.folder}` "
            f"(make add PACKAGE=xprof), or open {trace} at https://ui.perfetto.dev"
        )

    def close(self) -> None:
        """Ends a trace that a failure left open."""
        if self.tracing:
            self.tracing = False
            jax.profiler.stop_trace()

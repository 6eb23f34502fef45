"""What the proofs in tests/chaos/ print: a JSON line a row, and `N passed, N failed` last."""

import json
import time


class Rows:
    """Counts what passed. A row that asks for a number of trials has failed if it had fewer."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def add(self, row: str, passed: bool, **figures: object) -> None:
        """Prints one row."""
        self.passed, self.failed = self.passed + bool(passed), self.failed + (not passed)
        print(json.dumps({"row": row, "passed": bool(passed)} | figures), flush=True)

    def end(self) -> None:
        """Prints the sum; exits with code 1 when a row failed."""
        print(f"{self.passed} passed, {self.failed} failed")
        raise SystemExit(1 if self.failed else 0)


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self) -> float:
        return round(time.monotonic() - self.began, 3)

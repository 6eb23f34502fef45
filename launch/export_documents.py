"""Export the clean documents of a run as a dataset: Parquet files or JSON lines, and a dataset card.

    python -m launch.export_documents runs/demo --out release/demo-documents

Columns are those of FineWeb and of pages.keep_columns. The run is not changed.
"""

from dataclasses import dataclass

import tyro

from configs.experiment import existing_run
from launch.stages.command import run_without_config
from lm.storage import place_of


@dataclass(frozen=True)
class Command:
    run: tyro.conf.Positional[str]
    """Run folder, on a disk or in a bucket."""
    out: str
    """Output folder or URL: new, empty, or written by this script before."""
    format: str = "parquet"
    """Format: parquet, or jsonl (JSON lines)."""
    columns: tuple[str, ...] = ()
    """Columns, in this order; default: those of FineWeb and of pages.keep_columns."""
    shard_bytes: int = 1_000_000_000
    """Approximate bytes per file before compression."""
    workers: int = 1
    """Worker processes; the output does not depend on their number."""


def run(command: Command) -> None:
    from data_prep.engine.progress import ProgressLine
    from launch.release.documents import export_documents, open_documents

    opened, out = open_documents(existing_run(command.run)), place_of(command.out)
    with ProgressLine("export") as progress:
        found = export_documents(
            opened, out, format=command.format, columns=command.columns, shard_bytes=command.shard_bytes,
            workers=command.workers, on_progress=progress,
        )  # fmt: skip
    print(f"export: {found.rows:,} documents of {opened.name} in {found.files:,} files, as {found.format}: {out}")


if __name__ == "__main__":
    run_without_config("launch.export_documents", Command, run)

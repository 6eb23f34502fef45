"""Verify every byte of token shards, on a disk or in a bucket, against the SHA-256 in their manifest.

    python -m launch.verify_shards runs/demo
    python -m launch.verify_shards s3://my-bucket/runs/demo/tokens

Pass folders of shards or of runs. The exit code is 0 if all shards are intact, 1 if one is not.
"""

from dataclasses import dataclass

import tyro

from launch.stages.command import run_without_config
from lm.errors import UsageError
from lm.run_paths import RunPaths
from lm.storage import place_of


@dataclass(frozen=True)
class Command:
    folders: tyro.conf.Positional[tuple[str, ...]] = ()
    """Folders or URLs of shards, or of runs with shards."""


def run(command: Command) -> None:
    from lm.data.records import MANIFEST, read_manifest
    from lm.data.verify_shards import verify_shards

    if not command.folders:
        raise UsageError("Give a run folder: python -m launch.verify_shards runs/demo")
    for name in command.folders:
        folder = place_of(name)
        if not (folder / MANIFEST).is_file() and (folder / RunPaths.tokens / MANIFEST).is_file():
            folder = folder / RunPaths.tokens
        splits = read_manifest(folder).splits
        shards = [shard for split in splits.values() for shard in split.shards]
        verify_shards([(folder, split) for split in splits])
        total = sum(shard.bytes for shard in shards)
        print(f"{folder}: {len(shards):,} shards, {total:,} bytes: all unchanged", flush=True)


if __name__ == "__main__":
    run_without_config("launch.verify_shards", Command, run)

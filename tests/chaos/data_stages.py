"""Data stages and units that are killed or fail: the outputs equal those of an undisturbed run."""

import contextlib
import dataclasses
import hashlib
import io
import subprocess
import time
from pathlib import Path

from data_prep.config import EngineConfig
from data_prep.engine import run_step
from data_prep.warc import write_pages
from tests.chaos.runner import Figures, Trial, until_killed
from tests.corpus import web_pages
from tests.data_prep.engine.test_units import CRASH, DAMAGED, HANG, contents, records, step_of, texts
from tests.run_files import digests, finish, parameters, start

KILLS_PER_RUN = 10
SCRIPTS = ("launch.fetch_pages", "launch.extract_texts", "launch.prepare_documents")
DEDUPLICATE = ("--documents.steps", "gopher_quality", "exact_dedup", "minhash_dedup")
FILES, PAGES = 12, 60
MAX_UNIT_BYTES = 10_000_000


def pretrain(trial: Trial) -> Figures:
    """launch.pretrain with all stages: data files and parameters are equal bit for bit."""
    warc, hits, runs, same = trial.folder / "warc", 0, 0, 0
    pages = web_pages(40)
    copy = dataclasses.replace(pages[3], url="https://copy.example/", id="<urn:copy>")
    for number, part in enumerate((pages[:20], [*pages[20:], copy])):
        write_pages(warc / f"{number}.warc.gz", part)
    begun = time.monotonic()
    finish(start(trial.folder / "undisturbed", warc))
    whole = time.monotonic() - begun
    expected = digests(trial.folder / "undisturbed"), parameters(trial.folder / "undisturbed")
    while hits < trial.count and runs < 4 * trial.count:  # a fast machine may finish before the kill
        workdir, workers = trial.folder / f"killed-{runs}", str(1 + runs % 2)
        begin = lambda folder=workdir, count=workers: start(folder, warc, "--engine.workers", count)
        hits += until_killed(begin, min(4, trial.count - hits), lambda: trial.random.uniform(0.5, 0.6 * whole))
        finish(start(workdir, warc))
        same += (digests(workdir), parameters(workdir)) == expected
        runs += 1
    return {"passed": same == runs and hits >= trial.count, "kills": hits, "runs": runs, "identical": same}


def documents(trial: Trial) -> Figures:
    """Pages to documents: equal bytes, and no finished file of texts is processed again."""
    warc, hits, runs, same, again = trial.folder / "warc", 0, 0, 0, 0
    pages = web_pages(FILES * PAGES)
    for number in range(FILES):  # files of different sizes with copies and near-copies across them
        part = pages[number * PAGES : (number + 1) * PAGES - 4 * number]
        copied = [
            dataclasses.replace(page, url=f"https://copy.example/{number}/{i}", id=f"<urn:copy:{number}:{i}>",
                                body=page.body.replace(b"</h1>", b" again</h1>") if i % 2 else page.body)
            for i, page in enumerate(pages[:8])
        ]  # fmt: skip
        write_pages(warc / f"{number:02d}.warc.gz", [*part, *copied])
    for script in SCRIPTS:
        finish(start(trial.folder / "undisturbed", warc, *DEDUPLICATE, script=script))
    expected = digests(trial.folder / "undisturbed")
    while hits < trial.count and runs < 4 * trial.count:
        workdir, inodes, left = trial.folder / f"killed-{runs}", {}, min(KILLS_PER_RUN, trial.count - hits)

        def begin(script: str, workdir: Path = workdir, inodes: dict[str, int] = inodes) -> subprocess.Popen:
            nonlocal again
            now = {path.name: path.stat().st_ino for path in workdir.glob("texts/*.parquet")}
            again += sum(now.get(name) != inode for name, inode in inodes.items())
            inodes.update(now)
            workers = str(trial.random.choice((1, 2)))
            return start(workdir, warc, "--engine.workers", workers, *DEDUPLICATE, script=script)

        for script in SCRIPTS:
            if script != "launch.fetch_pages":
                hit = until_killed(lambda script=script: begin(script), left, lambda: trial.random.uniform(0.5, 5.0))
                hits, left = hits + hit, left - hit
            finish(begin(script))
        runs, same = runs + 1, same + (digests(workdir) == expected)
    passed = same == runs and not again and hits >= trial.count
    return {"passed": passed, "kills": hits, "runs": runs, "identical": same, "finished_files_made_again": again}


def units(trial: Trial) -> Figures:
    """Units that kill their process, read without end or are damaged, among 1,940 good ones."""
    good = texts(97 * trial.count)
    bad = {f"{kind}-{n:02d}": f"{kind} " for kind in (CRASH, HANG, DAMAGED) for n in range(trial.count)}
    mixed = dict(sorted((good | bad).items(), key=lambda item: hashlib.md5(item[0].encode()).digest()))
    engine, printed = EngineConfig(workers=2, max_failed=0.05, max_unit_bytes=MAX_UNIT_BYTES), io.StringIO()
    run_step(step_of(good), engine, trial.folder / "good")
    with contextlib.redirect_stdout(printed):
        run_step(step_of(mixed), engine, trial.folder / "mixed")
    named = records(trial.folder / "mixed")
    causes = {CRASH: "SIGKILL", HANG: "max_unit_bytes", DAMAGED: "is damaged"}
    found = {
        "same_bytes": contents(trial.folder / "mixed") == contents(trial.folder / "good"),
        "named": set(named) == set(bad),
        "counted": f"{len(bad)} of {len(mixed):,} units failed" in printed.getvalue(),
        "causes": all(causes[name.split("-")[0]] in one["error"] for name, one in named.items()),
    }
    return {"passed": all(found.values()), "units": len(mixed), "bad": len(bad), **found}

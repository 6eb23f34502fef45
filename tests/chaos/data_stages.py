"""launch.pretrain killed at random moments: the outputs equal those of an undisturbed run."""

import dataclasses
import time

from data_prep.warc import write_pages
from tests.chaos.runner import Figures, Trial, until_killed
from tests.corpus import web_pages
from tests.run_files import digests, finish, parameters, start


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

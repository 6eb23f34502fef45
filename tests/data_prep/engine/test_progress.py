import dataclasses

import pytest

from data_prep.engine.progress import Progress, ProgressLine, describe, duration


def progress_of(done: int, files: int, found: int = 0) -> Progress:
    """Progress over equal files of 1,000 bytes and 10 pages."""
    return Progress(done * 10, done, files, done * 1000, files * 1000, found * 10, found * 1000)


def test_remaining_time_is_estimated_from_the_bytes_of_this_run():
    assert describe(progress_of(3, 10), 30.0) == "30 pages, 3 of 10 files, 1 pages/s, 1 min 10 s left"
    assert describe(progress_of(8, 10, found=6), 20.0) == "80 pages, 8 of 10 files, 1 pages/s, 20 s left"
    big_one_left = Progress(90, 9, 10, bytes_done=9_000, bytes=90_000, pages_found=0, bytes_found=0)
    assert describe(big_one_left, 10.0).endswith("1 min 30 s left")


def test_no_remaining_time_is_printed_without_data_or_at_the_end():
    for progress, seconds in ((progress_of(0, 5), 3.0), (progress_of(5, 5), 3.0), (progress_of(2, 5, found=2), 0.0)):
        assert "left" not in describe(progress, seconds)


def test_without_a_terminal_a_line_is_printed_every_few_seconds_and_at_the_end(capsys):
    now = 0.0
    with ProgressLine("texts", clock=lambda: now) as line:
        for done in range(1001):
            now = done * 0.02
            line(progress_of(done, 1000))
            line(progress_of(done, 1000))  # nothing new
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 3 + 1
    assert lines[0].startswith("texts: 10 pages, 1 of 1,000 files")
    assert lines[-1] == "texts: 10,000 pages, 1,000 of 1,000 files, 500 pages/s"


def test_a_step_without_counts_prints_only_its_ranges():
    joins = Progress(0, 1, 4, 1, 4, 0, 0, step="near copies, link", unit="", inputs="ranges of keys")
    assert describe(joins, 10.0) == "near copies, link, 1 of 4 ranges of keys, 30 s left"


def test_each_step_has_its_own_timer(capsys):
    now = 0.0
    steps = [dataclasses.replace(progress_of(0, 2), step=name, unit="documents") for name in ("keys", "filtering")]
    with ProgressLine("documents", clock=lambda: now) as line:
        for step in steps:
            line(step)
            now += 10.0
            line(dataclasses.replace(step, pages=10, files_done=1, bytes_done=1000))
            now += 10.0
            line(dataclasses.replace(step, pages=20, files_done=2, bytes_done=2000))
    assert capsys.readouterr().out.splitlines() == [
        f"documents: {step}, {told}"
        for step in ("keys", "filtering")
        for told in (
            "10 documents, 1 of 2 files, 1 documents/s, 10 s left",
            "20 documents, 2 of 2 files, 1 documents/s",
        )
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599.7, "1 h 00 min"), (93_600, "1 d 02 h")],
)
def test_durations_have_at_most_two_units(seconds, words):
    assert duration(seconds) == words

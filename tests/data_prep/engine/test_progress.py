import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from data_prep.engine.progress import (
    PARTS_PER_LOOK,
    FileProgress,
    JoinProgress,
    Progress,
    ProgressLine,
    ProgressReporter,
    duration,
    texts_progress,
    told,
    unfinished_shards,
)
from data_prep.parquet import write_rows

SCHEMA = pa.schema([("number", pa.int64())])


@dataclass(frozen=True)
class File:
    index: int
    part: Path
    note: Path
    bytes: int


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("parts", "scratch"):
        (tmp_path / name).mkdir()
    return tmp_path


def source(folder: Path, index: int, size: int = 100) -> File:
    return File(index, folder / f"parts/{index}.parquet", folder / f"scratch/{index}.pages", size)


def finish(file: File, rows: int) -> None:
    write_rows([(file.part, {"number": n}) for n in range(rows)], {file.part: SCHEMA}, scratch=file.note.parent)
    file.note.unlink(missing_ok=True)


def seen(progress: Progress) -> tuple[int, int, int]:
    return progress.pages, progress.files_done, progress.bytes_done


def test_progress_is_the_whole_parts_and_the_notes_of_the_others(folder):
    files = [source(folder, index) for index in range(3)]
    look = FileProgress(files)
    assert look() == Progress(pages=0, files_done=0, files=3, bytes_done=0, bytes=300, pages_found=0, bytes_found=0)
    files[1].note.write_text("20")
    files[2].note.write_text("")  # just being written
    assert seen(look()) == (20, 0, 0)
    finish(files[1], 25)
    assert seen(look()) == (25, 1, 100)
    files[2].note.write_text("10")  # a file of 100 bytes held 25 pages
    assert seen(look()) == (35, 1, 140)
    files[2].note.write_text("1000")
    assert seen(look()) == (1025, 1, 200)


def test_a_whole_part_is_read_once(folder):
    files = [source(folder, index) for index in range(2)]
    look = FileProgress(files)
    finish(files[0], 5)
    assert seen(look()) == (5, 1, 100)
    files[0].part.write_bytes(b"whoever reads this finds no part")
    finish(files[1], 7)
    assert seen(look()) == (12, 2, 200)


def test_a_part_that_is_not_whole_is_not_done(folder):
    file = source(folder, 0)
    file.part.write_bytes(b"PAR1 half")
    look = FileProgress([file])
    for _ in range(2):
        progress = look()
        assert seen(progress) == (0, 0, 0) and progress.bytes_found == 0
    finish(file, 5)
    assert seen(look()) == (5, 1, 100)


def test_what_an_earlier_run_made_is_told_apart(folder):
    files = [source(folder, index, size=10 * (index + 1)) for index in range(3)]
    finish(files[0], 5)
    look = FileProgress(files)
    look()
    finish(files[1], 7)
    progress = look()
    assert seen(progress) == (12, 2, 30)
    assert (progress.pages_found, progress.bytes_found) == (5, 10)


def test_folders_that_are_not_there_yet_are_no_progress(tmp_path):
    assert seen(FileProgress([source(tmp_path / "later", 0)])()) == (0, 0, 0)


def test_of_very_many_files_those_in_the_making_are_followed_at_each_look_and_all_are_found(folder):
    files = [source(folder, index) for index in range(3 * PARTS_PER_LOOK)]
    look = FileProgress(files)
    look()  # lists all parts, as does each fourth look
    files[7].note.write_text("3")
    assert seen(look()) == (3, 0, 0)
    finish(files[7], 4)
    finish(files[9], 6)  # had no note at any look
    assert seen(look()) == (4, 1, 100)
    assert seen(look(complete=True)) == (10, 2, 200)


def test_the_parts_of_an_earlier_run_are_counted_little_by_little(folder):
    files = [source(folder, index) for index in range(150)]
    finish(files[0], 2)
    for file in files[1:]:
        file.part.write_bytes(files[0].part.read_bytes())
    look = FileProgress(files)
    first = look()
    assert (first.files_done, first.bytes_found) == (150, 15_000) and first.pages < 300
    assert look().pages_found == 300


def test_a_watch_reports_before_and_after(folder):
    file, reports = source(folder, 0), []
    with ProgressReporter(FileProgress([file]), reports.append):
        finish(file, 3)
    assert (seen(reports[0]), seen(reports[-1])) == ((0, 0, 0), (3, 1, 100))


def progress_of(done: int, files: int, found: int = 0) -> Progress:
    """All files alike: 1,000 bytes and 10 pages."""
    return Progress(done * 10, done, files, done * 1000, files * 1000, found * 10, found * 1000)


def test_the_time_left_is_reckoned_in_bytes_and_from_this_run_alone():
    assert told(progress_of(3, 10), 30.0) == "30 pages, 3 of 10 files, 1 pages/s, 1 min 10 s left"
    assert told(progress_of(8, 10, found=6), 20.0) == "80 pages, 8 of 10 files, 1 pages/s, 20 s left"
    big_one_left = Progress(90, 9, 10, bytes_done=9_000, bytes=90_000, pages_found=0, bytes_found=0)
    assert told(big_one_left, 10.0).endswith("1 min 30 s left")


def test_no_time_left_is_told_when_nothing_is_known_or_all_is_done():
    for progress, seconds in ((progress_of(0, 5), 3.0), (progress_of(5, 5), 3.0), (progress_of(2, 5, found=2), 0.0)):
        assert "left" not in told(progress, seconds)


def test_files_of_different_size_do_not_mislead_the_time_left(folder):
    """1,000 bytes a second, a page in 10 bytes, the large files last: the time left is right from the first file on."""
    sizes = [1_000] * 10 + [50_000, 100_000]
    files = [source(folder, index, size) for index, size in enumerate(sizes)]
    look = FileProgress(files)
    look()
    seconds = 0.0
    for file in files:
        file.note.write_text(str(file.bytes // 20))
        half_way = look()
        if half_way.files_done:
            assert half_way.bytes_done == pytest.approx((seconds + file.bytes / 2000) * 1000)
        file.note.unlink()
        finish(file, file.bytes // 10)
        seconds += file.bytes / 1000
        assert told(look(), seconds).endswith(
            f"{duration((sum(sizes) - seconds * 1000) / 1000)} left" if file != files[-1] else "pages/s"
        )


def test_without_a_terminal_there_is_a_line_every_few_seconds_and_one_at_the_end(capsys):
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


def test_each_step_has_a_time_of_its_own(capsys):
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


def test_a_part_made_from_texts_holds_as_many_pages_as_these(folder):
    for index in range(2):
        finish(source(folder, index), 5 + index)
    texts = [source(folder, index).part for index in range(2)]
    files = unfinished_shards(texts, folder / "scratch")
    look = texts_progress(files, "counting")
    assert seen(look()) == (0, 0, 0)
    files[1].note.write_text("2")
    assert seen(look()) == (2, 0, 0)
    files[0].part.write_text("{}")
    progress = look()
    assert (progress.pages, progress.files_done, progress.step, progress.unit) == (7, 1, "counting", "documents")


def test_joins_are_told_one_after_the_other_in_ranges_of_keys(tmp_path):
    def begin(join: str, ranges: int) -> None:
        (tmp_path / join).mkdir()
        (tmp_path / join / "ranges.json").write_text(json.dumps([[0, 1]] * ranges))

    def do(join: str, number: int) -> None:
        (tmp_path / join / f"{number:06d}.arrow").touch()

    begin("link", 4)
    do("link", 0)  # by an earlier run
    look = JoinProgress(tmp_path, "near copies")
    assert told(look(), 10.0) == "near copies, join 1, 1 of 4 ranges of keys"
    do("link", 1)
    assert told(look(), 10.0) == "near copies, join 1, 2 of 4 ranges of keys, 20 s left"
    begin("1-large", 2)
    do("1-large", 0)
    assert told(look(), 10.0) == "near copies, join 2, 1 of 2 ranges of keys, 10 s left"
    assert told(JoinProgress(tmp_path / "none", "exact copies")(), 10.0) == "exact copies, sorting"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599.7, "1 h 00 min"), (93_600, "1 d 02 h")],
)
def test_durations_have_two_units_at_most(seconds, words):
    assert duration(seconds) == words

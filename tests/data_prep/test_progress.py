import pyarrow as pa

from data_prep.parquet import write_rows
from data_prep.pipeline import SourceFile
from data_prep.progress import Progress, Watch, looking_at

SCHEMA = pa.schema([("number", pa.int64())])


def source(folder, index: int) -> SourceFile:
    part = folder / f"{index}.parquet"
    return SourceFile(index, folder / f"{index}.warc", "", part, part, part)


def finish(file: SourceFile, rows: int) -> None:
    write_rows([(file.part, {"number": n}) for n in range(rows)], {file.part: SCHEMA}, scratch=file.part.parent)


def test_progress_is_the_whole_parts_and_the_notes_of_the_others(tmp_path):
    files = [source(tmp_path, index) for index in range(3)]
    look = looking_at(files)
    assert look() == Progress(pages=0, files_done=0, files=3)
    files[1].note.write_text("20")
    files[2].note.write_text("")  # just being written
    assert look() == Progress(20, 0, 3)
    finish(files[1], 25)
    assert look() == Progress(25, 1, 3)


def test_a_whole_part_is_read_once(tmp_path):
    files = [source(tmp_path, index) for index in range(2)]
    look = looking_at(files)
    finish(files[0], 5)
    assert look() == Progress(5, 1, 2)
    files[0].part.write_bytes(b"whoever reads this finds no part")
    finish(files[1], 7)
    assert look() == Progress(12, 2, 2)


def test_a_watch_reports_before_and_after(tmp_path):
    file, seen = source(tmp_path, 0), []
    with Watch(looking_at([file]), seen.append):
        finish(file, 3)
    assert (seen[0], seen[-1]) == (Progress(0, 0, 1), Progress(3, 1, 1))

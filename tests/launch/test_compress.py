"""launch.compress and launch.decompress need only a run folder."""

import re

import pytest

from launch import compress, decompress
from launch.stages.command import handle_cli_errors
from launch.stages.packing import shown_progress
from lm.errors import UsageError
from tests.chaos.compression import small_run
from tests.corpus import texts

TEXT = texts(1, seed=99)[0].encode()[:1000]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("packing") / "run", steps=120)


def test_a_file_is_packed_and_unpacked_and_the_figures_are_printed(run, tmp_path, capsys):
    file = tmp_path / "a text.txt"
    file.write_bytes(TEXT)
    before = sorted(path for path in run.rglob("*"))
    compress.run(compress.Command(str(run), str(file)))
    said = capsys.readouterr().out
    packed = tmp_path / "a text.txt.grist"
    size = packed.stat().st_size
    assert size < len(TEXT) and file.read_bytes() == TEXT
    assert f"1,000 -> {size} bytes" in said and f"bits per byte: file {8 * size / 1000:.3f}" in said
    entropy, coded = re.findall(r"cross-entropy of the model at step 120 ([\d.]+), coder ([\d.]+)", said)[0]
    assert float(entropy) <= float(coded) < float(entropy) + 8 * 8 / 1000 + 0.001
    assert all(name in said for name in ("gzip -9", "zstd -19", "xz -9e", "needs the model too"))
    with pytest.raises(UsageError, match=r"a text\.txt exists\. Give another path"):
        decompress.run(decompress.Command(str(run), str(packed)))
    decompress.run(decompress.Command(str(run), str(packed), str(tmp_path / "again")))
    assert (tmp_path / "again").read_bytes() == TEXT
    file.write_bytes(b"")
    decompress.run(decompress.Command(str(run), str(packed), overwrite=True))
    assert file.read_bytes() == TEXT
    with pytest.raises(UsageError, match=r"is also the input file, which would be lost\. Give another output path"):
        compress.run(compress.Command(str(run), str(file), str(file), overwrite=True))
    assert file.read_bytes() == TEXT
    assert sorted(path for path in run.rglob("*")) == before


def test_an_older_checkpoint_packs_and_the_file_names_it(run, tmp_path, capsys):
    file = tmp_path / "x"
    file.write_bytes(TEXT)
    with pytest.raises(UsageError, match="There is no checkpoint of step 5"):
        compress.run(compress.Command(str(run), str(file), step=5))
    compress.run(compress.Command(str(run), str(file), step=120))
    assert "step 120" in capsys.readouterr().out


@pytest.mark.parametrize("script", [compress, decompress], ids=["compress", "decompress"])
def test_a_wrong_command_is_reported_and_leaves_nothing(script, run, tmp_path, capsys):
    def refused(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended, handle_cli_errors("launch.x"):
            script.run(script.Command(*words))
        return int(ended.value.code or 0), capsys.readouterr().err

    file = tmp_path / "x.grist"
    file.write_bytes(TEXT)
    code, said = refused(str(run), str(tmp_path / "none.grist"))
    assert code == 1 and "none.grist cannot be read: No such file" in said
    assert refused(str(run), str(file), str(tmp_path))[0] == 2
    assert refused(str(run), str(file), str(file))[0] == 2
    code, said = refused(str(run / "none"), str(file), str(tmp_path / "out"))
    assert code == (2 if script is compress else 1)
    assert [path.name for path in tmp_path.iterdir()] == ["x.grist"]
    if script is decompress:
        assert "begins with" in said
        with pytest.raises(UsageError, match=r"does not end in \.grist"):
            decompress.without_suffix(tmp_path / "x.zip")


def test_the_time_left_ignores_the_wait_of_the_first_step(monkeypatch, capsys):
    times = iter([100.0, 103.0, 106.0])
    monkeypatch.setattr("launch.stages.packing.time.monotonic", lambda: next(times))
    progress, line = shown_progress("compress")
    monkeypatch.setattr(line, "show", print)
    for done in (8, 308, 608):  # 100 tokens a second after the first step
        progress(done, 1008)
    assert capsys.readouterr().out.splitlines() == [
        "compress: 308 of 1,008 tokens  100 tokens/s  0:07 left",
        "compress: 608 of 1,008 tokens  100 tokens/s  0:04 left",
    ]

"""Archives are read in bounded memory without writing to disk; damage is reported."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from configs.packages.archives import read_members
from lm.errors import InputError

LIMIT = 1_000_000


def wheel(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "p-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, date_time=(2020, 2, 2, 1, 2, 4))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return path


def sdist(folder: Path, files: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    path = folder / "p-1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1580605324
            archive.addfile(info, io.BytesIO(data))
        for other in others:
            archive.addfile(other)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("pack", [wheel, sdist])
def test_matching_members_with_their_dates(tmp_path, pack):
    path = pack(tmp_path, {"p/b.txt": b"second", "p/deep/a.txt": b"third", "p/c.py": b"code"})
    members = list(read_members(path, "p/*.txt", LIMIT))
    assert [(m.name, m.data) for m in members] == [("p/b.txt", b"second"), ("p/deep/a.txt", b"third")]
    assert {m.date for m in members} == {"2020-02-02T01:02:04Z"}
    assert list(tmp_path.iterdir()) == [path]


def test_links_and_devices_are_skipped(tmp_path):
    path = sdist(
        tmp_path,
        {"p/a.txt": b"fine"},
        special("p/link", tarfile.SYMTYPE, "../../etc/passwd"),
        special("p/hard", tarfile.LNKTYPE, "/etc/passwd"),
        special("p/device", tarfile.CHRTYPE),
        special("p/sparse", tarfile.GNUTYPE_SPARSE),  # its holes would exceed the limit
    )
    assert [(m.name, m.data) for m in read_members(path, "*", LIMIT)] == [("p/a.txt", b"fine")]


def test_the_limit_applies_to_the_sum_of_all_members(tmp_path):
    files = {f"p/{n}.txt": bytes(LIMIT // 4) for n in range(5)}
    for path in (wheel(tmp_path, files), sdist(tmp_path, files)):
        assert path.stat().st_size < LIMIT / 50
        with pytest.raises(InputError, match=rf"unpacks to more than {LIMIT} bytes"):
            list(read_members(path, "*", LIMIT))
        assert len(list(read_members(path, "*", 2 * LIMIT))) == 5


def test_a_zip_with_a_false_size_is_rejected(tmp_path):
    path = wheel(tmp_path, {"p/bomb.txt": bytes(50 * LIMIT)})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # local header and central directory
        struct.pack_into("<I", data, data.index(signature) + offset, 10)
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        list(read_members(path, "*", LIMIT))


def test_a_tar_header_that_claims_gigabytes_is_rejected_at_the_limit(tmp_path):
    name = tarfile.TarInfo("././@LongLink")  # the name of the next member, allegedly of 8 GB
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    path = tmp_path / "p-1.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(name.tobuf(tarfile.GNU_FORMAT))
        for _ in range(20):
            file.write(b"a" * LIMIT)
    with pytest.raises(InputError, match="more than"):
        list(read_members(path, "*", LIMIT))


@pytest.mark.parametrize("name", ["p-1.tar.gz", "p-1-py3-none-any.whl"])
@pytest.mark.parametrize("content", [b"", b"no archive at all", zlib.compress(b"x")], ids=["empty", "text", "zlib"])
def test_files_that_are_not_archives_are_rejected_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is damaged or not an archive"):
        list(read_members(tmp_path / name, "*", LIMIT))


@pytest.mark.parametrize("pack", [wheel, sdist])
def test_a_truncated_archive_is_rejected(tmp_path, pack):
    path = pack(tmp_path, {f"p/{n}.txt": bytes(range(256)) * 50 for n in range(20)})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="damaged"):
        list(read_members(path, "*", LIMIT))


def test_an_invalid_zip_date_becomes_1980(tmp_path):
    path = wheel(tmp_path, {"p/a.txt": b"fine"})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 12), (b"PK\x01\x02", 14)):  # local header and central directory
        struct.pack_into("<H", data, data.index(signature) + offset, 0)  # year 1980, month 0, day 0
    path.write_bytes(data)
    assert [(m.date[:10], m.data) for m in read_members(path, "*", LIMIT)] == [("1980-01-01", b"fine")]


@pytest.mark.parametrize("mtime", ["inf", "nan", "1e30", "-1e30"])
def test_an_invalid_tar_date_becomes_1980(tmp_path, mtime):
    path = tmp_path / "p-1.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("p/a.txt")
        info.size, info.pax_headers = 4, {"mtime": mtime}
        archive.addfile(info, io.BytesIO(b"fine"))
    assert [(m.date[:10], m.data) for m in read_members(path, "*", LIMIT)] == [("1980-01-01", b"fine")]

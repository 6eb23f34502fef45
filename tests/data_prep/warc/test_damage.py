"""Damaged and hostile WARC files: intact records are read, damage is reported by name, memory and time are bounded;
`python -m tests.chaos warc` reads larger ones.
"""

import gzip
import random
import re
import sys
import zlib
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from data_prep.documents import Damage
from data_prep.warc import pages as reading
from data_prep.warc import read_pages
from data_prep.warc.http_response import MAX_CHUNKS
from tests.chaos import warc as chaos
from tests.chaos.runner import Trial
from tests.damaged_warcs import (
    OK,
    account_of,
    archive_of,
    faults_of,
    fuzzed_file,
    numbered_page,
    response,
    single_fault,
)

PAGES = [numbered_page(number, random.Random(number)) for number in range(12)]
HTML = b"<p>" + b"A page of some length. " * 40


def read(path: Path) -> tuple[list[bytes], list[Damage]]:
    damages: list[Damage] = []
    return [page.body for page in read_pages(path, damages.append)], damages


@pytest.mark.parametrize("compressed", [True, False], ids=["gzip", "plain"])
def test_a_single_fault_affects_only_the_records_it_hits(tmp_path, compressed):
    archive, totals = archive_of(PAGES, compressed), Counter()
    for number in range(60):
        totals.update(faults_of(archive, single_fault(archive.data, random.Random(number)), tmp_path / "a.warc"))
    assert totals["intact"] > 500
    assert totals["lost"] == totals["altered"] == 0
    assert totals["altered heads"] + totals["unsaid"] <= (0 if compressed else 2)  # no checksum covers headers


def test_every_record_is_accounted_for(tmp_path):
    totals = Counter()
    for seed in range(150):
        totals.update(account_of(fuzzed_file(seed), tmp_path / "a.warc"))
    assert totals == {"miscounted": 0, "altered": 0, "unsaid": 0}


def test_damage_is_reported_once_per_position_with_its_offset(tmp_path):
    path, archive = tmp_path / "a.warc.gz", archive_of(PAGES[:4], compressed=True)
    whole, (start, _) = archive.data, archive.places[1]
    path.write_bytes(whole[: start + 150] + b"\xff" * 40 + whole[start + 190 :])
    bodies, damages = read(path)
    assert bodies == [PAGES[n].body for n in (0, 2, 3)]
    assert [(damage.offset, damage.reason) for damage in damages] == [(start, "damaged_gzip_member")]
    start, end = archive.places[3]
    for cut in (start + 5, start + 380, end - 1, end + 20):  # truncated within a response, and after it
        path.write_bytes(whole[:cut])
        bodies, damages = read(path)
        assert len(bodies) == 3 + (cut > end)
        assert [(damage.offset, damage.reason) for damage in damages] == [(start if cut < end else end, "cut_off")]


def member(records: bytes) -> bytes:
    return gzip.compress(records, mtime=0)


def undecodable(body: bytes, header: str) -> tuple[bytes, str]:
    return member(response(body, f"{OK}{header}\r\n")), "undecodable_body"


GOOD = response(HTML, OK)
REASONS = {
    "a member whose checksum is wrong": (member(GOOD)[:-8] + b"\0\0\0\0" + member(GOOD)[-4:], "damaged_gzip_member"),
    "a member whose length is wrong": (member(GOOD)[:-1] + b"\1", "damaged_gzip_member"),
    "a zstd frame": (zstandard.ZstdCompressor(write_checksum=True).compress(GOOD)[:-1] + b"x", "damaged_gzip_member"),
    "text": (b"hello " * 99, "no_record_here"),
    "zeros": (bytes(999), "no_record_here"),
    "a member of text": (member(b"hello " * 99), "no_record_here"),
    "a member within a member": (member(member(GOOD)), "no_record_here"),
    "no Content-Length": (member(GOOD.replace(b"Content-Length:", b"Content-Width:")), "bad_warc_header"),
    "a Content-Length below zero": (member(re.sub(rb"(?<=Content-Length: )\d+", b"-5", GOOD)), "bad_warc_header"),
    "a Content-Length of 40 digits": (member(re.sub(rb"(?<=Content-Length: )\d+", b"9" * 40, GOOD)), "bad_warc_header"),
    "no type": (member(GOOD.replace(b"WARC-Type", b"WARC-Tepy")), "bad_warc_header"),
    "addresses cannot": (member(GOOD.replace(b"WARC-Target-URI", b"WARC-Target-URL")), "bad_warc_header"),
    "no id": (GOOD.replace(b"<urn:uuid", b"no address"), "bad_warc_header"),
    "headers without end": (member(b"WARC/1.1\r\nA: " + b"a" * 10**5), "bad_warc_header"),
    "headers that are no text": (GOOD.replace(b"https://odd", b"https://\xff\0d"), "bad_warc_header"),
    "the heads of two records": (GOOD.replace(b"WARC-Date", b"WARC-Type: response\r\nWARC-Date"), "bad_warc_header"),
    "a request that is a response": (GOOD.replace(b"Type: response", b"Type: request"), "bad_warc_header"),
    "too short a Content-Length": (re.sub(rb"(?<=Content-Length: )\d+", b"500", GOOD), "wrong_content_length"),
    "the same in gzip": (member(re.sub(rb"(?<=Content-Length: )\d+", b"500", GOOD)), "wrong_content_length"),
    "too long a Content-Length": (member(re.sub(rb"(?<=Content-Length: )\d+", b"5000", GOOD)), "cut_off"),
    "another block's digest": (member(re.sub(rb"(?<=Block-Digest: sha1:).", b"7", GOOD)), "wrong_block_digest"),
    "another payload's digest": (
        member(re.sub(rb"WARC-Block-Digest: \S+\r\n", b"", re.sub(rb"(?<=Payload-Digest: sha1:).", b"7", GOOD))),
        "wrong_payload_digest",
    ),
    "no HTTP": (member(response(HTML, "Hello: you")), "bad_http_header"),
    "HTTP headers without end": (member(response(HTML, OK + "A: " + "a" * 10**5 + "\r\n")), "bad_http_header"),
    "no gzip body": undecodable(b"no", "Content-Encoding: gzip"),
    "half a gzip body": undecodable(gzip.compress(HTML)[:-9], "Content-Encoding: gzip"),
    "half a Brotli body": undecodable(b"\x1b\xff\0\0", "Content-Encoding: br"),
    "half a zstd body": undecodable(zstandard.compress(HTML)[:-9], "Content-Encoding: zstd"),
    "an unknown coding": undecodable(b"?", "Content-Encoding: rot13"),
    "a hundred codings": undecodable(b"?", f"Content-Encoding: {'gzip,' * 100}"),
    "a chunk too few": undecodable(b"3\r\nabc\r\n", "Transfer-Encoding: chunked"),
    "a bad chunk size": undecodable(b"3\r\nabc\r\n-5\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "too many chunks": undecodable(b"1\r\na\r\n" * (MAX_CHUNKS + 1) + b"0\r\n\r\n", "Transfer-Encoding: chunked"),
    "a part of a page": (member(response(HTML, OK, {"WARC-Segment-Number": "1"})), "segmented_record"),
}


@pytest.mark.parametrize("name", REASONS)
def test_each_damage_is_named_and_records_around_it_are_read(tmp_path, name):
    path, (damaged, reason) = tmp_path / "a.warc", REASONS[name]
    pack = zstandard.compress if damaged.startswith(b"\x28\xb5") else member if damaged.startswith(b"\x1f") else bytes
    around = pack(response(HTML, OK))
    path.write_bytes(around + damaged + around)
    bodies, damages = read(path)
    assert bodies == [HTML, HTML]
    assert damages[0].offset == len(around)
    assert {damage.reason for damage in damages} - {"no_record_here"} <= {reason}
    assert damages[0].reason == reason
    assert damages[0].detail


def test_records_truncated_by_the_crawler_are_read_to_their_end(tmp_path):
    path, cut = tmp_path / "a.warc.gz", {"WARC-Truncated": "length"}
    half = zlib.compress(HTML * 99)[:200]
    path.write_bytes(member(response(half, OK + "Content-Encoding: deflate\r\n", cut)))
    (body,), damages = read(path)
    assert (HTML * 99).startswith(body)
    assert len(body) > 100
    assert not damages


BARE = re.compile(rb"WARC-(Block|Payload)-Digest: \S+\r\n")


def test_records_of_a_damaged_member_are_read_if_their_digest_is_valid_or_they_come_before_the_damage(tmp_path):
    """If its checksum is wrong, it is read like an uncompressed file, but a record without a digest is not trusted."""
    path, records = tmp_path / "a.warc.gz", [response(b"<p>%02d " % n + HTML, OK) for n in range(50)]
    records[3] = BARE.sub(b"", records[3])
    stored = gzip.compress(b"".join(records), 0, mtime=0)
    path.write_bytes(stored.replace(b"<p>01 ", b"<p>07 "))
    bodies, damages = read(path)
    assert [int(body[3:5]) for body in bodies] == [0, 2, *range(4, 50)]
    assert [damage.reason for damage in damages] == ["wrong_block_digest", "damaged_gzip_member", "damaged_gzip_member"]
    path.write_bytes(stored[: len(b"".join(records[:30])) - 200])
    bodies, damages = read(path)
    assert [int(body[3:5]) for body in bodies] == [*range(29)]
    assert [damage.reason for damage in damages] == ["cut_off"]
    # A known limitation: in an uncompressed file nothing could detect an altered block without a digest.
    path.write_bytes(BARE.sub(b"", response(HTML, OK)).replace(b"length", b"Length"))
    assert read(path) == ([HTML.replace(b"length", b"Length")], [])


def test_a_page_above_the_limit_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_PAGE_BYTES", 100_000)
    noise, coded = random.Random(0).randbytes(200_000), OK + "Content-Encoding: gzip\r\n"
    records = [response(noise, OK), response(gzip.compress(noise), coded), response(gzip.compress(bytes(10**6)), coded)]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(member(one) for one in [*records, response(HTML, OK)]))
    bodies, damages = read(path)
    assert bodies == [HTML]
    assert [damage.reason for damage in damages] == ["record_too_large"] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory used from /proc")
@pytest.mark.slow
def test_memory_and_time_are_bounded_for_hostile_records(tmp_path, monkeypatch):
    monkeypatch.setattr(chaos, "MAX_SECONDS", 10 * chaos.MAX_SECONDS)  # the machine may be busy
    found = [*chaos.hostile(Trial(tmp_path, 0, 0, random.Random(0)))]
    assert len(found) == 20 and not [one for one in found if not one["passed"]]

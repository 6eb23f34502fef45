"""Read the records of a WARC file in order, and resume after damage.

A gzip member is decompressed completely, and its checksum and length verified, before any of its records is yielded.
Without a checksum (an uncompressed file, zstd, a member of many records with a wrong checksum), a record must end where
the next one begins or its block digest must match, and its headers must be well-formed. After damage, reading resumes
at the next record that is compressed like the last one.

Not detected, because no checksum covers it: in an uncompressed file a changed block without a digest, and changed WARC
headers that are still well-formed.
"""

import re
from collections.abc import Generator, Iterator

from data_prep.documents import Damage, OnDamage
from data_prep.warc.byte_sources import (
    GZIP,
    ByteSource,
    DamagedError,
    FileBytes,
    HeldBytes,
    InflatedBytes,
    Pattern,
    search,
)
from data_prep.warc.members import (
    ZSTD,
    GzipMember,
    Member,
    Members,
    RescuedMember,
    ZstdFrame,
    scan,
    usual_member,
    zstd_dictionary,
)
from data_prep.warc.record import (
    AFTER,
    BAD_WARC_HEADER,
    CUT_OFF,
    EMPTY_LINES,
    MARK,
    MAX_BLOCK_BYTES,
    MAX_HEAD_BYTES,
    NO_RECORD,
    TOO_LARGE,
    Checksum,
    HeaderError,
    Record,
    record_at,
)

START = Pattern(MARK, rb"WARC/\d{1,2}\.\d{1,2}[ \t]{,9}\r?\n[A-Za-z]")
MEMBER = Pattern(GZIP, rb"\x1f\x8b\x08[\x00-\x1f]")  # the upper bits of the flags are reserved
FRAME = Pattern(ZSTD, re.escape(ZSTD))
ANY = Pattern(b"", b"|".join(pattern.regex.pattern for pattern in (START, MEMBER, FRAME)))
HOLD = MAX_BLOCK_BYTES + 2 * MAX_HEAD_BYTES


class RecordReader:
    """Reader of the records of one WARC file. `on_damage` is called for each damaged place."""

    def __init__(self, file: FileBytes, on_damage: OnDamage):
        self.file, self.on_damage = file, on_damage
        self.is_warc = False
        """Whether anything that is or may have been a WARC record was found."""
        self.dictionary = b""
        """Zstd dictionary."""
        self.lead = b""
        """First bytes that are not a record, decompressed."""
        self.wasted = 0
        """Bytes that were read in vain. Overlapping structures could cause this repeatedly, so above the size of the
        file nothing is read twice."""

    def records(self) -> Iterator[Record]:
        """Yield all undamaged records in order, as far as checksums, digests and record ends can tell."""
        offset, pattern = 0, ANY
        try:
            self.dictionary, offset = zstd_dictionary(self.file)
        except DamagedError as error:
            self.on_damage(Damage(offset, error.reason, error.detail))
        while offset < self.file.size:
            lead = self.file.at(offset, len(MARK))
            if lead.startswith(GZIP) and (usual := usual_member(self.file, offset)):
                pattern = MEMBER
                record = only_record(usual[0], len(usual[0]), offset, "valid")
                if record is not None:
                    self.is_warc = True
                    yield record
                    offset = usual[1]
                    continue
            if lead.startswith((GZIP, ZSTD)):
                pattern = MEMBER if lead.startswith(GZIP) else FRAME
                offset = yield from self._member(self._opened(offset, lead), offset, pattern)
            elif lead == MARK:
                pattern = START
                offset = yield from self._records_in(self.file, offset, None, "none")
            else:
                self._report_no_record(offset, lead)
                offset = self._next(pattern, offset + 1)

    def _opened(self, offset: int, lead: bytes) -> Member:
        """Open the gzip member or zstd frame at `offset`, which begins with `lead`."""
        return GzipMember(self.file, offset) if lead.startswith(GZIP) else ZstdFrame(self.file, offset, self.dictionary)

    def _member_at(self, offset: int) -> Member | None:
        """Open the gzip member or zstd frame at `offset`; None if there is none."""
        lead = self.file.at(offset, len(ZSTD))
        return self._opened(offset, lead) if lead.startswith((GZIP, ZSTD)) else None

    def _member(self, opened: Member, offset: int, pattern: Pattern) -> Generator[Record, None, int]:
        """Yield the records in the member at `offset`; return the position at which to continue."""
        member = scan(opened, offset, HOLD)
        if member.broken is not None:
            self.is_warc = True  # it may have contained records
            cause = member.broken
            if pattern is MEMBER and cause.reason != TOO_LARGE and self.wasted <= self.file.size:
                # Yield the records that their digests confirm. If there is only one, skip it: its headers are not
                # trustworthy either.
                rescued = InflatedBytes(RescuedMember(self.file, offset).read)
                if begins_with_several(rescued, offset):
                    # Truncated data is presumably right up to the cut.
                    yield from self._records_in(rescued, 0, offset, "none" if cause.reason == CUT_OFF else "broken")
            self.on_damage(Damage(offset, cause.reason, cause.detail))
            return self._next(pattern, self._after_vain(offset, member.end))
        checksum: Checksum = "valid" if member.has_checksum else "none"
        record = only_record(member.held, member.size, offset, checksum)
        if record is not None:
            self.is_warc = True
            yield record
        elif len(member.held) < member.size:
            again = Members(lambda start: self._member_at(start) if start == offset else None, offset)
            yield from self._records_in(InflatedBytes(again.read), 0, offset, checksum)
        elif self._member_at(member.end) is not None and not self._begins_with(member.end, MARK):
            # The next member begins in the middle of a record.
            return (yield from self._stretch(offset, pattern))
        else:
            yield from self._records_in(HeldBytes(member.held), 0, offset, checksum)
        return member.end

    def _stretch(self, offset: int, pattern: Pattern) -> Generator[Record, None, int]:
        """Yield the records of members that do not begin with records, as bgzip writes them, to the end of the file."""
        while True:
            members = Members(self._member_at, offset)
            source = InflatedBytes(members.read)
            yield from self._records_in(source, 0, offset, "none")
            if source.broken is None:
                return members.end
            self.on_damage(Damage(members.start, source.broken.reason, source.broken.detail))
            offset = self._next(pattern, self._after_vain(members.start, members.end), lead=b"")
            if offset >= self.file.size:
                return offset

    def _records_in(
        self, source: ByteSource, position: int, offset: int | None, checksum: Checksum
    ) -> Generator[Record, None, int]:
        """Yield the records of `source` from `position`; return the position where it ends or, in a file, where gzip
        begins.

        `offset` is the position in the file of the compressed data; None if the source is the file itself.
        """
        while True:
            source.hold(position, AFTER)
            lead = source.at(position, AFTER)
            rest = lead.lstrip(b"\r\n")
            position += len(lead) - len(rest)
            if not rest and len(lead) < AFTER:
                return position
            if offset is None and rest.startswith(GZIP):
                return position
            place = position if offset is None else offset
            if not rest.startswith(MARK):
                self._report_no_record(place, rest)
                retry = position + 1
            else:
                self.is_warc = True
                try:
                    record = record_at(source, position, place, checksum)
                except HeaderError as error:
                    self.on_damage(Damage(place, BAD_WARC_HEADER, str(error)))
                    retry = position + len(MARK)
                else:
                    if (yield from self._proven(record)):
                        position = record.end
                        continue
                    retry = record.end if passes_by(record) else record.start
            found = search(source, START, retry)
            if found is None:
                return self.file.size
            position = found

    def _report_no_record(self, offset: int, lead: bytes) -> None:
        self.lead = self.lead or lead
        self.on_damage(Damage(offset, NO_RECORD, f"neither a record nor compressed: {lead!r}"))

    def _proven(self, record: Record) -> Generator[Record, None, bool]:
        """Yield the record if it ends correctly; return whether its end can be trusted."""
        if passes_by(record):  # its end is known only after it was read
            yield record
            record.source.hold(record.end, AFTER)
        fault = record.fault_at_end()
        if fault is not None and not self._believed(record):
            if fault[0] != CUT_OFF or not is_broken(record):  # otherwise the damage that cut it off is reported
                self.on_damage(Damage(record.offset, *fault))
            return False
        if not passes_by(record):
            if record.length <= MAX_BLOCK_BYTES:
                record.source.hold(record.start, record.length + AFTER)
            yield record
        if record.checksum == "valid" or record.length > MAX_BLOCK_BYTES or self.wasted > self.file.size:
            return True
        if record.block_digest_holds() is not False:
            return True
        # Bytes may be missing: then the computed end is inside a later record. Side effect: if an archive that is
        # stored in the archive is damaged, its records are yielded too.
        self.wasted += record.length
        return False

    def _believed(self, record: Record) -> bool:
        """Whether a record is intact although no record follows it: the damage may be in the next one."""
        may_end = record.may_end()
        if record.length > MAX_BLOCK_BYTES:
            return may_end
        if self.wasted > self.file.size:
            return False
        holds = record.block_digest_holds()
        believed = may_end if holds is None else holds
        self.wasted += 0 if believed else record.length
        return believed

    def _after_vain(self, start: int, end: int) -> int:
        """Return where to search for the next record if the bytes from `start` to `end` could not be read."""
        self.wasted += end - start
        return start + 1 if self.wasted <= self.file.size else max(end, start + 1)

    def _next(self, pattern: Pattern, start: int, lead: bytes = MARK) -> int:
        """Return the start of the next record or member whose decompressed data begins with `lead` and is not empty;
        the size of the file if there is none."""
        while (found := search(self.file, pattern, start)) is not None:
            if self._begins_with(found, lead):
                return found
            start = found + 1
        return self.file.size

    def _begins_with(self, offset: int, lead: bytes) -> bool:
        """Whether the data at `offset`, decompressed if necessary, begins with `lead` and is not empty."""
        member, begun = self._member_at(offset), b""
        if member is None:
            return self.file.at(offset, len(lead)) == lead
        try:
            while len(begun) < max(1, len(lead)) and (inflated := member.read(64)):
                begun += inflated
        except DamagedError:
            return False
        return begun != b"" and begun.startswith(lead)


def passes_by(record: Record) -> bool:
    """Whether the record is too large to be held in memory, and its source can only be read forward."""
    return isinstance(record.source, InflatedBytes) and record.length > MAX_BLOCK_BYTES


def is_broken(record: Record) -> bool:
    """Whether the gzip member or zstd frame that contains the record is known to be damaged."""
    return record.checksum == "broken" or (
        isinstance(record.source, InflatedBytes) and record.source.broken is not None
    )


def only_record(held: bytes, size: int, offset: int, checksum: Checksum) -> Record | None:
    """Return the record in an undamaged gzip member or zstd frame if it is the only one, else None. `held` are the
    first decompressed bytes, `size` is the number of all decompressed bytes."""
    if not held.startswith(MARK):
        return None
    try:
        record = record_at(HeldBytes(held), 0, offset, checksum)
    except HeaderError:
        return None
    return record if 0 <= size - record.end <= len(EMPTY_LINES) and not held[record.end :].strip() else None


def begins_with_several(source: InflatedBytes, offset: int) -> bool:
    """Whether the source begins with a complete record that is followed by another."""
    if source.at(0, len(MARK)) != MARK:
        return False
    try:
        record = record_at(source, 0, offset, "broken")
    except HeaderError:
        return False
    if record.length > MAX_BLOCK_BYTES:
        return False
    return source.at(record.end, AFTER).lstrip(b"\r\n").startswith(MARK)

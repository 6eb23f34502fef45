"""Count the bytes read and decompressed in a block, so that an endless input can be stopped. Readers call
`count_bytes`; `metered` receives the counts of its thread."""

import contextlib
import io
import os
from collections.abc import Callable, Generator
from contextvars import ContextVar

OnBytes = Callable[[int, int], None]
"""Callback with (bytes read, bytes decompressed) since the last call. Its exceptions propagate to the reader."""
METER: ContextVar[OnBytes | None] = ContextVar("METER", default=None)


@contextlib.contextmanager
def metered(on_bytes: OnBytes) -> Generator[None]:
    """Call `on_bytes` for all bytes that this thread reports by `count_bytes` in the block."""
    token = METER.set(on_bytes)
    try:
        yield
    finally:
        METER.reset(token)


def count_bytes(read: int = 0, unpacked: int = 0) -> None:
    """Report bytes to the callback of the enclosing `metered` block, if there is one."""
    if on_bytes := METER.get():
        on_bytes(read, unpacked)


class MeteredFile(io.RawIOBase):
    """Wrapper that reports the bytes read from `file` to `count_bytes`. Closing it closes the file."""

    def __init__(self, file: io.RawIOBase | io.BufferedReader):
        self.file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self.file.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size) or b""
        count_bytes(read=len(data))
        return data

    def close(self) -> None:
        self.file.close()
        super().close()

"""Header lines of WARC and HTTP."""

import re

HEAD_END = re.compile(rb"\r?\n\r?\n")
FOLD = (b" ", b"\t")


class Headers:
    """Header lines including the first line (WARC version or HTTP status), up to the empty line.

    Values are parsed on request: of about forty lines per page ten are used. WARC headers are UTF-8, HTTP headers
    traditionally Latin-1.
    """

    __slots__ = ("_lowered", "head")

    def __init__(self, head: bytes):
        self.head, self._lowered = head, head.lower()

    def get(self, name: bytes) -> str:
        """Return the value of the first header `name`, given in lower case; "" if there is none."""
        start = self._lowered.find(b"\n" + name + b":")
        if start < 0:
            return ""
        start += len(name) + 2
        end = self.head.find(b"\n", start)
        while self.head[end + 1 : end + 2] in FOLD:  # the value continues in the next line
            end = self.head.find(b"\n", end + 1)
        value = self.head[start:end].strip()
        if b"\n" in value:
            value = b" ".join(value.split())
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")


def end_of_head(data: bytes) -> int:
    """Return the end of the empty line after the headers at the start of `data`; -1 if it is missing."""
    first = data.find(b"\n")
    if data[first - 1 : first] == b"\r":
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            return end + 4
    found = HEAD_END.search(data)
    return found.end() if found else -1

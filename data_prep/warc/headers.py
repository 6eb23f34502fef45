"""Header lines, of WARC and of HTTP alike."""

import re

HEAD_END = re.compile(rb"\r?\n\r?\n")
FOLD = (b" ", b"\t")


class Headers:
    """The lines before a block or a body, the version or status line in front, ended by an empty line.

    A value is looked for when it is asked for: of a page's forty lines ten are. They are UTF-8 in WARC, and by old
    custom Latin-1 in HTTP.
    """

    __slots__ = ("_lowered", "head")

    def __init__(self, head: bytes):
        self.head, self._lowered = head, head.lower()

    def get(self, name: bytes) -> str:
        """The value of the first header of that name, which is given in lower case; "" if there is none."""
        start = self._lowered.find(b"\n" + name + b":")
        if start < 0:
            return ""
        start += len(name) + 2
        end = self.head.find(b"\n", start)
        while self.head[end + 1 : end + 2] in FOLD:  # the value goes on in the next line
            end = self.head.find(b"\n", end + 1)
        value = self.head[start:end].strip()
        if b"\n" in value:
            value = b" ".join(value.split())
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")


def end_of_head(data: bytes) -> int:
    """Where the empty line after the headers ends that `data` begins with; -1 if there is none."""
    first = data.find(b"\n")
    if data[first - 1 : first] == b"\r":
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            return end + 4
    found = HEAD_END.search(data)
    return found.end() if found else -1

"""URLs in one spelling, so that a page's and a list's can be compared: hosts, and host with path."""

import re
from urllib.parse import unquote

MAX_HOST = 253  # characters of a host name (RFC 1035)
# The scheme and what parts it from the host; browsers take backslashes for slashes, and need none after http.
BEFORE_HOST = re.compile(r"[\x00-\x20]*(?:https?:|[a-z][a-z0-9+.-]*:(?=[/\\]{2}))?[/\\]*", re.IGNORECASE)
HOST = re.compile(r"[^/\\?#]*")
PORT = re.compile(r":[0-9]*$")


def split_address(url: str) -> tuple[str, str]:
    """The canonical host of `url` as a browser reads it, without user, port and final dot, and the rest of `url`.

    The scheme may be missing. The host is "" where there is none, or none that a name server could know.
    """
    start = BEFORE_HOST.match(url)
    host = HOST.match(url, start.end() if start else 0)
    assert host is not None  # the pattern matches the empty string too
    name = host[0].rpartition("@")[2]
    return ("" if name.startswith("[") else canonical_host(PORT.sub("", name))), url[host.end() :]


def canonical_host(name: str) -> str:
    """`name` in lower case, %-escapes decoded, international names in Punycode as browsers write them (UTS 46).

    A name that is not valid stays as it is, one that is too long becomes "".
    """
    if "%" in name:
        name = unquote(name)
    name = name.lower().strip(".")
    if len(name) > MAX_HOST:
        return ""
    return name if name.isascii() else punycode(name)


def punycode(name: str) -> str:
    """`name` in ASCII by IDNA 2008, or by IDNA 2003 where that knows it alone (symbols), or as it is."""
    import idna

    try:
        return idna.encode(name, uts46=True).decode().strip(".")
    except UnicodeError:
        try:
            return name.encode("idna").decode().strip(".").lower()
        except UnicodeError:
            return name


def parents(host: str) -> list[str]:
    """`host` and every domain above it, the longest first: a.b.example, b.example, example."""
    starts = [0, *(dot.end() for dot in re.finditer(r"\.", host))]
    return [host[start:] for start in starts]


def page_key(host: str, rest: str) -> str:
    """How a list of single URLs names a page: host without "www.", path and query, in lower case.

    The scheme, the port, a final slash and what follows "#" do not count; `host` is canonical.
    """
    path = unquote(rest.partition("#")[0]).replace("\\", "/").lower().rstrip("/")
    return f"{host.removeprefix('www.')}/{path.removeprefix('/')}"

"""URLs in one spelling, so that a page's and a list's can be compared: hosts, and host with path."""

import re
from collections.abc import Sequence
from urllib.parse import unquote

MAX_HOST = 253  # characters of a host name (RFC 1035)
# The scheme and what parts it from the host; browsers take backslashes for slashes, and need none after http.
BEFORE_HOST = re.compile(r"[\x00-\x20]*(?:https?:|[a-z][a-z0-9+.-]*:(?=[/\\]{2}))?[/\\]*", re.IGNORECASE)
HOST = re.compile(r"[^/\\?#]*")
PORT = re.compile(r":[0-9]*$")
DEFAULT_PORTS = ("", ":", ":80", ":443")
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


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


def same_page_key(url: str, ignored_parameters: Sequence[str] = ()) -> str | None:
    """A spelling that two addresses share which most likely lead to the same page; None without a host.

    The scheme, user, "www.", a default port, a slash at the path's end and what follows "#" do not count, unless that
    begins with "!", as addresses of pages made by scripts do; nor do the order of the query's parameters and those
    whose names are in `ignored_parameters`, in whatever case ("utm_*" is all that begin so). The case of the path
    counts, as it does to servers. Escapes are compared as RFC 3986, 6.2.2 says.
    """
    host, rest = split_address(url)
    if not host:
        return None
    authority = HOST.match(url, match.end() if (match := BEFORE_HOST.match(url)) else 0)
    port = PORT.search(authority[0]) if authority else None
    rest, _, fragment = rest.partition("#")
    path, _, query = rest.partition("?")
    path = ESCAPE.sub(one_escape, path.replace("\\", "/")).rstrip("/")
    names = frozenset(one.lower() for one in ignored_parameters if not one.endswith("*"))
    beginnings = tuple(one[:-1].lower() for one in ignored_parameters if one.endswith("*"))
    parameters = []
    for parameter in filter(None, query.split("&")):
        name = parameter.partition("=")[0].lower()
        if name not in names and not name.startswith(beginnings):
            parameters.append(ESCAPE.sub(one_escape, parameter))
    parameters.sort(key=lambda parameter: parameter.partition("=")[0])  # of one name, in the order they came in
    spelled = host.removeprefix("www.") + (port[0] if port and port[0] not in DEFAULT_PORTS else "") + path
    spelled += "?" + "&".join(parameters) if parameters else ""
    return spelled + ("#" + fragment if fragment.startswith("!") else "")


def one_escape(escape: re.Match[str]) -> str:
    """A %-escape as it is compared: of what needs none, the character; else with capitals."""
    character = chr(int(escape[1], 16))
    return character if character in UNRESERVED else escape[0].upper()

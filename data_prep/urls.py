"""Canonical URLs, to compare those of pages with those of lists: hosts, and hosts with paths."""

import re
from collections.abc import Sequence
from urllib.parse import unquote

MAX_HOST = 253  # characters of a host name (RFC 1035)
# The scheme and the separator before the host; browsers accept backslashes, and no slashes after http.
BEFORE_HOST = re.compile(r"[\x00-\x20]*(?:https?:|[a-z][a-z0-9+.-]*:(?=[/\\]{2}))?[/\\]*", re.IGNORECASE)
HOST = re.compile(r"[^/\\?#]*")
PORT = re.compile(r":[0-9]*$")
DEFAULT_PORTS = ("", ":", ":80", ":443")
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def split_address(url: str) -> tuple[str, str]:
    """Return (canonical host of `url` as a browser reads it, without user, port and final dot; rest of `url`). The
    scheme may be missing. The host is "" if there is none, or if no name server could resolve it."""
    start = BEFORE_HOST.match(url)
    host = HOST.match(url, start.end() if start else 0)
    assert host is not None  # the pattern matches the empty string too
    name = host[0].rpartition("@")[2]
    return ("" if name.startswith("[") else canonical_host(PORT.sub("", name))), url[host.end() :]


def canonical_host(name: str) -> str:
    """Return `name` in lower case, with %-escapes decoded and international names in Punycode as browsers write them
    (UTS 46). Invalid names are returned unchanged; names that are too long become ""."""
    if "%" in name:
        name = unquote(name)
    name = name.lower().strip(".")
    if len(name) > MAX_HOST:
        return ""
    return name if name.isascii() else punycode(name)


def punycode(name: str) -> str:
    """Return `name` in ASCII by IDNA 2008, or by IDNA 2003 if only that supports it (symbols), or else unchanged."""
    import idna

    try:
        return idna.encode(name, uts46=True).decode().strip(".")
    except UnicodeError:
        try:
            return name.encode("idna").decode().strip(".").lower()
        except UnicodeError:
            return name


def parents(host: str) -> list[str]:
    """Return `host` and all domains above it, longest first: a.b.example gives a.b.example, b.example, example."""
    starts = [0, *(dot.end() for dot in re.finditer(r"\.", host))]
    return [host[start:] for start in starts]


def page_key(host: str, rest: str) -> str:
    """Return the key of a page in a list of single URLs, such as "example.org/a?b=c": host without "www.", path and
    query, in lower case, without a final slash and fragment. `host` and `rest` are from `split_address`."""
    path = unquote(rest.partition("#")[0]).replace("\\", "/").lower().rstrip("/")
    return f"{host.removeprefix('www.')}/{path.removeprefix('/')}"


def same_page_key(url: str, ignored_parameters: Sequence[str] = ()) -> str | None:
    """Return a key that is equal for URLs that most likely lead to the same page; None without a host.

    Ignored: scheme, user, "www.", a default port, a slash at the end of the path, the order of query parameters,
    parameters in `ignored_parameters` (case-insensitive; "utm_*" matches all with that prefix), and the fragment,
    unless it begins with "!", as in URLs of pages made by scripts. The path is case-sensitive, as for servers. Escapes
    are compared by RFC 3986, 6.2.2.
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
    parameters.sort(key=lambda parameter: parameter.partition("=")[0])  # stable: equal names keep their order
    spelled = host.removeprefix("www.") + (port[0] if port and port[0] not in DEFAULT_PORTS else "") + path
    spelled += "?" + "&".join(parameters) if parameters else ""
    return spelled + ("#" + fragment if fragment.startswith("!") else "")


def one_escape(escape: re.Match[str]) -> str:
    """Return a %-escape in normal form: decoded if the character is unreserved, otherwise in upper case."""
    character = chr(int(escape[1], 16))
    return character if character in UNRESERVED else escape[0].upper()

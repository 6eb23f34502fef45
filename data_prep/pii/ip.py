"""Public IP addresses, IPv4 and IPv6. Private, loopback, documentation and other special addresses identify no one.

Four numbers with periods may also be a version or a section ("libfoo 4.3.2.1", "section 1.1.2.3"): the words before
them decide.
"""

import contextlib
import ipaddress
import re
from collections.abc import Iterator

from data_prep.pii.places import COVERED, COVERS, Span

# The first character is matched before the lookbehinds, so the search can skip to digits.
IPV4 = re.compile(
    rf"[1-9](?<![\w{COVERED}][0-9])(?<![\w{COVERED}][.,-][0-9])[0-9]{{0,2}}+(?:\.(?:0|[1-9][0-9]{{0,2}}+)){{3}}"
    rf"(?![\w{COVERED}]|[.,-][\w{COVERED}])"
)
OCTET = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
ANY_IPV4 = re.compile(rf"{OCTET}(?:\.{OCTET}){{3}}")
IPV6 = re.compile(
    rf"(?:(?<![\w{COVERED}:.])|(?<=[g-zG-Z]:)|(?<=[vV]6:))"
    rf"(?:[0-9A-Fa-f]{{1,4}}+:|::)[0-9A-Fa-f:]{{1,40}}+(?![\w{COVERED}]|\.[\w{COVERED}])"
)
"""Also matches the notation of mail servers: "[IPv6:2a02:6b8::2:242]"."""
TWO_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}+:")
"""Necessary for an IPv6 address and absent from most pages, so it is searched first: IPV6 takes four times longer."""
VERSION_WORDS = frozenset(
    ("v", "ver", "version", "versions", "release", "releases", "rel", "build", "firmware", "update", "patch", "kernel",
     "driver", "revision", "rev", "upgrade", "upgraded", "downgrade", "downgraded", "§", "§§", "section", "sections",
     "sec", "subsection", "chapter", "chapters", "clause", "paragraph", "para", "article", "annex", "appendix", "table",
     "tables", "figure", "figures", "fig", "figs", "equation", "eq", "theorem", "lemma", "definition", "exercise",
     "example", "problem", "step", "item", "rule", "part", "page", "oid", "ec")
)  # fmt: skip
"""Words before four numbers that are a version, a section or similar ("EC 3.4.21.4" is an enzyme)."""
ADDRESS_WORDS = frozenset((
    "ip", "ips", "ipv4", "address", "addresses", "addr", "host", "hosts", "hostname", "server", "servers",
    "nameserver", "nameservers", "dns", "resolver", "resolvers", "ping", "pinged", "pinging", "traceroute", "whois",
    "gateway", "router", "subnet", "network", "client", "clients", "user", "node", "peer", "proxy", "port",
    "connection", "connected", "connect", "login", "ssh", "telnet", "curl", "dig", "nslookup", "listen", "deny",
    "allow", "firewall", "remote", "visitor", "blocked", "banned", "logged",
))  # fmt: skip
RESOLVERS = frozenset(("1.0.0.1", "1.1.1.1", "4.2.2.1", "4.2.2.2", "8.8.4.4", "8.8.8.8", "9.9.9.9", "9.9.9.10"))
"""Well-known open DNS servers with small numbers."""
FUNCTION_WORDS = frozenset(
    ("a", "an", "and", "are", "as", "at", "by", "for", "from", "is", "on", "or", "that", "the", "through", "to", "use",
     "used", "uses", "using", "via", "was", "e", "g", "i", "eg", "ie", "like")
)  # fmt: skip
SMALL = 32
"""Four numbers that are all below this are as often a version or a section; only 0.02 % of public addresses are
such."""
CONTEXT = 64
"""Maximum characters before four small numbers, in the same line, to search for words that classify them."""
WORD = re.compile(r"[\w§-]+")
LATER_KINDS = "".join(COVERS[kind] for kind in ("ip", "address", "phone"))
FOUND = re.compile(f"[{LATER_KINDS}]")
"""Covers of finds of the IP search itself, or of later ones."""
HEADING = re.compile(rf"[.)–-]?[ \t]+(?:[^\W\d_]|[{LATER_KINDS}])")
"""Text after a section number at the start of a line."""
SPECIAL_BLOCKS = frozenset({0, 10, 100, 127, 169, 172, 192, 198, 203, *range(224, 256)})
"""First numbers of special-purpose IPv4 addresses (IANA's registry); only these are checked with the library."""
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


def find(text: str) -> Iterator[Span]:
    """Yield the spans of the public IPv4 and IPv6 addresses in `text`."""
    spans = []
    for match in IPV4.finditer(text):
        octets = [int(part) for part in match[0].split(".")]
        if is_ipv4(octets) and not is_version(text, match, octets):
            spans.append(match.span())
    if TWO_COLONS.search(text):
        for match in IPV6.finditer(text):
            number = match[0][:-1] if match[0][-1] == ":" != match[0][-2] else match[0]  # "2a02:6b8::1: no route"
            if is_ipv6(number):
                spans.append((match.start(), match.start() + len(number)))
    yield from sorted(spans)


def find_every_ipv4(text: str) -> Iterator[Span]:
    """Yield the spans of the public IPv4 addresses in `text`, including version numbers that look like one."""
    for match in ANY_IPV4.finditer(text):
        with contextlib.suppress(ValueError):  # a leading zero
            if ipaddress.IPv4Address(match[0]).is_global:
                yield match.span()


def is_ipv4(octets: list[int]) -> bool:
    """Whether four numbers are a public IPv4 address."""
    if max(octets) > 255:
        return False
    return octets[0] not in SPECIAL_BLOCKS or is_public(ipaddress.IPv4Address(bytes(octets)))


def is_version(text: str, match: re.Match[str], octets: list[int]) -> bool:
    """Whether a match of four numbers is a version, a section or similar, by the words before it.

    For large numbers the previous word decides. Small numbers are more often versions: no word before them in the line
    may refer to versions, and the previous word must not be a name unrelated to addresses ("libfoo 4.3.2.1").
    """
    start, end = match.span()
    words = text[max(0, start - 16) : start].rstrip(" .:").split()
    if words and words[-1].lstrip("([").lower() in VERSION_WORDS:
        return True
    if max(octets) >= SMALL:
        return False
    line = text[max(0, start - CONTEXT, text.rfind("\n", max(0, start - CONTEXT), start) + 1) : start]
    words = [word.lower() for word in WORD.findall(line)]
    if FOUND.search(line):  # the text was cleaned before, when the original line was visible
        return True
    if not line.strip(" \t#*>-"):
        return HEADING.match(text, end) is not None and match[0] not in RESOLVERS
    if not ADDRESS_WORDS.isdisjoint(words):
        return False
    if not VERSION_WORDS.isdisjoint(words):
        return True
    if line.endswith(("==", ">=", "<=", "~=")):
        return True
    is_name = line.endswith((" ", "-", "_", "/", "=")) and not line.rstrip(" ").endswith((",", ":", ";", ".", "(", "="))
    return match[0] not in RESOLVERS and is_name and words[-1:] != [] and words[-1] not in FUNCTION_WORDS


def is_ipv6(number: str) -> bool:
    """Whether hexadecimal numbers and colons are a public IPv6 address, not a time, a MAC address or a C++ name."""
    try:
        address = ipaddress.IPv6Address(number)
    except ValueError:
        return False
    if "::" in number:
        return is_public(address) and address in GLOBAL_UNICAST
    return is_public(address) and any(len(group) > 2 for group in number.split(":"))


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether the address can be that of one machine on the internet."""
    return address.is_global and not address.is_multicast

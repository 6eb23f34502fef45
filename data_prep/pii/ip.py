"""Public IP addresses, IPv4 and IPv6. Private, loopback, documentation and other special ones tell of nobody."""

import ipaddress
import re
from collections.abc import Iterator

from data_prep.pii.places import COVERED, Span

# The first character is matched before what stands in front of it is looked at: so the search can skip to digits.
IPV4 = re.compile(
    rf"[1-9](?<![\w{COVERED}][0-9])(?<![\w{COVERED}][.,-][0-9])[0-9]{{0,2}}+(?:\.(?:0|[1-9][0-9]{{0,2}}+)){{3}}"
    rf"(?![\w{COVERED}]|[.,-][\w{COVERED}])"
)
IPV6 = re.compile(
    rf"(?<![\w{COVERED}:.])(?:[0-9A-Fa-f]{{1,4}}+:|::)[0-9A-Fa-f:]{{1,40}}+(?![\w{COVERED}]|\.[\w{COVERED}])"
)
TWO_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}+:")
"""What most pages lack; without it they need not be searched for IPv6, which takes four times as long."""
VERSION_WORDS = frozenset(
    ("v", "ver", "version", "release", "rel", "build", "firmware", "update", "patch", "§", "section", "sec", "chapter",
     "clause", "paragraph", "table", "figure")
)  # fmt: skip
"""What stands before four numbers that are a version or a section."""
SMALL = 32
"""Four numbers that are all below this are a version or a section: of the public addresses 0.02 % are such."""
SPECIAL_BLOCKS = frozenset({0, 10, 100, 127, 169, 172, 192, 198, 203, *range(224, 256)})
"""First numbers of the IPv4 addresses with a special purpose (IANA's registry); only of these the library is asked."""
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


def find(text: str) -> Iterator[Span]:
    """The places of the public IP addresses in `text`."""
    spans = [
        match.span()
        for match in IPV4.finditer(text)
        if is_ipv4(match[0], text[max(0, match.start() - 16) : match.start()])
    ]
    if TWO_COLONS.search(text):
        spans += [match.span() for match in IPV6.finditer(text) if is_ipv6(match[0])]
    yield from sorted(spans)


def is_ipv4(number: str, before: str) -> bool:
    """Whether four numbers with dots are a public address, and not a version or a section; `before` precedes them."""
    octets = [int(part) for part in number.split(".")]
    if not SMALL <= max(octets) <= 255:
        return False
    if octets[0] in SPECIAL_BLOCKS and not is_public(ipaddress.IPv4Address(number)):
        return False
    words = before.rstrip(" .:").split()
    return not words or words[-1].lstrip("([").lower() not in VERSION_WORDS


def is_ipv6(number: str) -> bool:
    """Whether hexadecimal numbers with colons are a public address, and not a time, a MAC address or a name in C++."""
    try:
        address = ipaddress.IPv6Address(number)
    except ValueError:
        return False
    if "::" in number:
        return is_public(address) and address in GLOBAL_UNICAST
    return is_public(address) and any(len(group) > 2 for group in number.split(":"))


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether the address can belong to one machine in the internet."""
    return address.is_global and not address.is_multicast

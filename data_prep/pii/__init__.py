"""Find personal data, one kind after another, and replace each find with a placeholder. Time is linear in the text.

FineWeb replaces e-mail and public IP addresses (Penedo et al. 2024, arXiv:2406.17557); the other kinds are additions.
"""

from collections.abc import Callable, Iterator

from data_prep.config import PersonalDataConfig
from data_prep.pii import email, iban, ip, payment_card, phone
from data_prep.pii.places import Mask, Span

Finder = Callable[[str, PersonalDataConfig], Iterator[Span]]


def find_addresses(text: str, config: PersonalDataConfig) -> Iterator[Span]:
    from data_prep.pii import address  # compiling its patterns takes 0.1 s, needed only for this kind

    return address.find(text)


FINDERS: dict[str, Finder] = {
    "email": lambda text, config: (
        email.find(text) if config.emails == "international" else email.find_ascii(text, config)
    ),
    "iban": lambda text, config: iban.find(text),
    "payment_card": lambda text, config: payment_card.find(text),
    "ip": lambda text, config: ip.find(text) if config.ips == "by_context" else ip.find_every_ipv4(text),
    "address": find_addresses,
    "phone": phone.find,
}
"""Finders in the order of the search. A kind that could be mistaken for another one comes before it, e.g. numbers with
checksums before phone numbers. Each yields non-overlapping spans from left to right."""


def replace_personal_data(text: str, config: PersonalDataConfig) -> tuple[str, dict[str, int]]:
    """Return (`text` with a placeholder for each find of the configured kinds, {kind: number of finds}).

    Applying this to its own result changes nothing. Without finds, the same text object is returned.
    """
    kinds: list[str] = [kind for kind in FINDERS if kind in config.kinds]
    mask = Mask(text, {kind: config.placeholder(kind) for kind in kinds})
    counts = {kind: mask.cover(kind, FINDERS[kind](mask.text, config)) for kind in kinds}
    return (mask.uncovered() if any(counts.values()) else text), counts

"""Personal data: found kind by kind, and replaced by a placeholder each.

FineWeb replaces e-mail and public IP addresses (Penedo et al. 2024, arXiv:2406.17557); the other kinds are ours. Time
is linear in any text.
"""

from collections.abc import Callable, Iterator

from data_prep.config import PersonalDataConfig
from data_prep.pii import ascii_email, email, iban, ip, payment_card, phone
from data_prep.pii.places import Mask, Span

Finder = Callable[[str, PersonalDataConfig], Iterator[Span]]


def find_addresses(text: str, config: PersonalDataConfig) -> Iterator[Span]:
    from data_prep.pii import address  # its patterns take a tenth of a second, which only this kind is to cost

    return address.find(text)


FINDERS: dict[str, Finder] = {
    "email": lambda text, config: (
        email.find(text) if config.emails == "international" else ascii_email.find(text, config)
    ),
    "iban": lambda text, config: iban.find(text),
    "payment_card": lambda text, config: payment_card.find(text),
    "ip": lambda text, config: ip.find(text) if config.ips == "by_context" else ip.find_every_ipv4(text),
    "address": find_addresses,
    "phone": phone.find,
}
"""In the order in which they look: what could be mistaken for another kind goes before that, so the checksums go before
the phone numbers. Each yields its finds from left to right, none over another."""


def replace_personal_data(text: str, config: PersonalDataConfig) -> tuple[str, dict[str, int]]:
    """`text` with the chosen kinds of personal data replaced, and how many of each, in the order of FINDERS.

    To replace twice is to replace once; a text in which nothing was found comes back itself, the same object.
    """
    kinds: list[str] = [kind for kind in FINDERS if kind in config.kinds]
    mask = Mask(text, {kind: config.placeholder(kind) for kind in kinds})
    counts = {kind: mask.cover(kind, FINDERS[kind](mask.text, config)) for kind in kinds}
    return (mask.uncovered() if any(counts.values()) else text), counts

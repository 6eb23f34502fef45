"""Generators of adversarial texts of a given length, over which a pattern may take quadratic time or longer.

Any function that the pipeline applies to the text of web pages must take time proportional to the length of all of them
(test_linear_time.py checks it).
"""

import random
from collections.abc import Callable


def repeated(unit: str, start: str = "", end: str = "") -> Callable[[int], str]:
    """Texts that repeat `unit` between `start` and `end`."""

    def generate(length: int) -> str:
        inner = length - len(start) - len(end)
        return start + (unit * (inner // len(unit) + 1))[:inner] + end

    return generate


def drawn(make: Callable[[random.Random], str]) -> Callable[[int], str]:
    """Texts of random pieces, the same at every call, so that caching earlier pieces does not help."""

    def generate(length: int) -> str:
        source, parts, total = random.Random(0), [], 0
        while total < length:
            parts.append(make(source))
            total += len(parts[-1])
        return "".join(parts)[:length]

    return generate


def digits(source: random.Random, count: int) -> str:
    return "".join(source.choices("0123456789", k=count))


UNITS = {
    "letters": "a",
    "capitals": "A",
    "blanks": " ",
    "newlines": "\n",
    "blank lines": " \t\n",
    "digits": "1",
    "unicode digits": "٣५７",
    "dots": ".",
    "dashes": "-",
    "brackets": "(",
    "closing brackets": ")",
    "nested brackets": "([",
    "curly brackets": "{",
    "less-than signs": "<",
    "at signs": "@",
    "colons": ":",
    "slashes": "/",
    "quotation marks": '"',
    "words": "word ",
    "one long word": "a-",
    "sentences": "A b. ",
    "names": "Main Street ",
    "exclamations": "a!",
    "local parts": "a@",
    "addresses in a row": "a@b.de",
    "IPv4 in a row": "1.1.1.",
    "IPv4 without end": "81.2.69.160.",
    "IPv6 groups": "2a02:",
    "IPv6 gaps": "::2a02",
    "calling codes": "+1 ",
    "zeros": "00 ",
    "digit groups": "1 1 1 11 ",
    "digits in brackets": "(1)",
    "card groups": "4111 1111 1111 ",
    "IBAN groups": "GB82WEST ",
    "IBAN starts": "AA11 ",
    "houses": "12345 Main ",
    "streets": "Street ",
    "ways": "Via A B ",
    "postcodes": "1 A St, CA 1",
    "German houses": "Aweg 1 ",
    "commas": " ,\n",
    "phone words": "phone ",
    "parameters": ";a=b",
    "quoted semicolons": '";"',
    "JSON types": '"@type": "A',
    "URLs": "http://a.b/?c=d&",
    "percent signs": "%2",
    "ellipses": "…",
    "zero-width spaces": "\u200b",
    "emoji": "👩‍👩‍👧",
    "Chinese": "联系我们",
    "noncharacters": "\ufdd0",
}
"""{name: what a text of this kind repeats}."""
GENERATORS: dict[str, Callable[[int], str]] = {
    **{name: repeated(unit) for name, unit in UNITS.items()},
    "dotted local part": repeated("a.", end="@"),
    "dotted domain": repeated("a.", start="a@"),
    "hyphens in a domain": repeated("a-", start="a@"),
    "house names": repeated("1 A ", end="Street"),
    "combining accents": repeated("\u0301", start="a"),
    "accents out of order": repeated("\u0301\u0316", start="a"),
    "random digits": drawn(lambda source: digits(source, 7) + " "),
    "random phone numbers": drawn(lambda source: f"+1 {digits(source, 3)}-{digits(source, 3)}-{digits(source, 4)}, "),
    "random national numbers": drawn(lambda source: f"tel {digits(source, 4)} {digits(source, 4)} "),
    "random cards": drawn(lambda source: f"4{digits(source, 15)} "),
    "random IBANs": drawn(lambda source: f"GB{digits(source, 2)}WEST{digits(source, 14)} "),
    "random IPv4": drawn(lambda source: ".".join(str(source.randrange(256)) for _ in range(4)) + " "),
    "random e-mail": drawn(lambda source: f"a{digits(source, 4)}@b{digits(source, 2)}.de "),
    "random addresses": drawn(lambda source: f"{digits(source, 3)} Main Street, Apt {digits(source, 2)}\n"),
    "random characters": drawn(lambda source: chr(source.randrange(32, 127))),
}

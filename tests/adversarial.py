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


GENERATORS: dict[str, Callable[[int], str]] = {
    "letters": repeated("a"),
    "capitals": repeated("A"),
    "blanks": repeated(" "),
    "newlines": repeated("\n"),
    "blank lines": repeated(" \t\n"),
    "digits": repeated("1"),
    "unicode digits": repeated("٣५７"),
    "dots": repeated("."),
    "dashes": repeated("-"),
    "brackets": repeated("("),
    "closing brackets": repeated(")"),
    "nested brackets": repeated("(["),
    "curly brackets": repeated("{"),
    "less-than signs": repeated("<"),
    "at signs": repeated("@"),
    "colons": repeated(":"),
    "slashes": repeated("/"),
    "quotation marks": repeated('"'),
    "words": repeated("word "),
    "one long word": repeated("a-"),
    "sentences": repeated("A b. "),
    "names": repeated("Main Street "),
    "exclamations": repeated("a!"),
    "local parts": repeated("a@"),
    "dotted local part": repeated("a.", end="@"),
    "dotted domain": repeated("a.", start="a@"),
    "hyphens in a domain": repeated("a-", start="a@"),
    "addresses in a row": repeated("a@b.de"),
    "IPv4 in a row": repeated("1.1.1."),
    "IPv4 without end": repeated("81.2.69.160."),
    "IPv6 groups": repeated("2a02:"),
    "IPv6 gaps": repeated("::2a02"),
    "calling codes": repeated("+1 "),
    "zeros": repeated("00 "),
    "digit groups": repeated("1 1 1 11 "),
    "digits in brackets": repeated("(1)"),
    "card groups": repeated("4111 1111 1111 "),
    "IBAN groups": repeated("GB82WEST "),
    "IBAN starts": repeated("AA11 "),
    "houses": repeated("12345 Main "),
    "streets": repeated("Street "),
    "house names": repeated("1 A ", end="Street"),
    "ways": repeated("Via A B "),
    "postcodes": repeated("1 A St, CA 1"),
    "German houses": repeated("Aweg 1 "),
    "commas": repeated(" ,\n"),
    "phone words": repeated("phone "),
    "parameters": repeated(";a=b"),
    "quoted semicolons": repeated('";"'),
    "JSON types": repeated('"@type": "A'),
    "URLs": repeated("http://a.b/?c=d&"),
    "percent signs": repeated("%2"),
    "ellipses": repeated("…"),
    "combining accents": repeated("\u0301", start="a"),
    "accents out of order": repeated("\u0301\u0316", start="a"),
    "zero-width spaces": repeated("\u200b"),
    "emoji": repeated("👩‍👩‍👧"),
    "Chinese": repeated("联系我们"),
    "noncharacters": repeated("\ufdd0"),
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

"""Languages with scripts: ISO 639-3 and ISO 15924 codes, e.g. "deu_Latn", as in GlotLID and FineWeb-2.

lid.176 returns only the language; the script is then that of most letters of the text.
"""

import functools
from collections import Counter

import regex

from data_prep.config.language import LABELS

SCRIPTS = """
Latn Cyrl Arab Deva Hani Hira Kana Hang Thai Grek Hebr Beng Armn Geor Taml Telu Knda Mlym Gujr Guru Orya Sinh Mymr Khmr
Laoo Tibt Ethi Cans Cher Tfng Syrc Thaa Mong Olck Nkoo Mtei Lisu Limb Kali Wara Goth Copt Bopo Yiii Vaii Java Bali Sund
""".split()  # noqa: SIM905 - as in data_prep/text/words.py
PATTERNS = {script: regex.compile(rf"\p{{Script={script}}}") for script in SCRIPTS}
UNKNOWN = "Zyyy"
"""ISO 15924 code of an undetermined script."""
KANA = frozenset(("Hira", "Kana"))
WITH_HAN = {"jpn": "Jpan", "kor": "Hang"}
"""{language that is also written in Han characters: GlotLID's code of the mixed script}."""


@functools.lru_cache(maxsize=1 << 16)
def script_of_letter(letter: str) -> str:
    """Return the ISO 15924 code of a letter's script, such as "Latn"; UNKNOWN for other characters and scripts."""
    if not letter.isalpha():
        return UNKNOWN
    return next((script for script, pattern in PATTERNS.items() if pattern.match(letter)), UNKNOWN)


def script_of(text: str) -> str:
    """Return the script of most letters, such as "Latn", or "Jpan" for kana; UNKNOWN without letters. If several
    scripts have as many, the first in SCRIPTS counts."""
    counts: Counter[str] = Counter()
    for letter, number in Counter(text).items():
        counts[script_of_letter(letter)] += number
    del counts[UNKNOWN]
    if not counts:
        return UNKNOWN
    found = max(SCRIPTS, key=lambda script: counts[script])
    return "Jpan" if found in KANA else found


def labelled(language: str, text: str) -> tuple[str, str]:
    """Return (ISO 639-3 code, ISO 15924 script) of a language that lid.176, GlotLID or a table names, such as "de" or
    "deu_Latn". If the name has no script, that of `text` is returned."""
    code, _, script = language.partition("_")
    code, usual = LABELS.get(code, (code, UNKNOWN))
    if script:
        return code, script
    found = script_of(text)
    if found in ("Hani", "Jpan") and code in WITH_HAN:
        return code, WITH_HAN[code]
    return code, usual if found == UNKNOWN else found

"""Spans of personal data, and the text in which they are covered.

While the kinds are searched one after another, each find is covered by a single character that no pattern matches; at
the end placeholders replace it. A placeholder that the text has already is covered too: it may look like personal data.
"""

import re
from collections.abc import Iterable
from typing import get_args

from data_prep.config.personal_data import PersonalDataKind

Span = tuple[int, int]
"""Start and end, in characters."""

COVERS = dict(zip(get_args(PersonalDataKind), map(chr, range(0xFDD0, 0xFDEF)), strict=False))
"""Noncharacters, which Unicode sets aside for use inside a program: one for each kind."""
FOREIGN = "\ufdef"
"""Stands for a noncharacter that the text itself holds; as rare as it is wrong."""
COVERED = "\ufdd0-\ufdef"
"""All of them, to be put between the brackets of a pattern's set."""
NONCHARACTERS = re.compile(f"[{COVERED}]")


class Mask:
    """A text in which what was found is covered."""

    def __init__(self, text: str, placeholders: dict[str, str]):
        self.placeholders = placeholders
        self.foreign = NONCHARACTERS.findall(text)
        self.text = NONCHARACTERS.sub(FOREIGN, text) if self.foreign else text
        # the longest first, so that one which holds another is covered as a whole
        for kind, placeholder in sorted(placeholders.items(), key=lambda item: -len(item[1])):
            self.text = self.text.replace(placeholder, COVERS[kind])

    def cover(self, kind: str, spans: Iterable[Span]) -> int:
        """Covers the spans (of `text`, from left to right), and says how many they are."""
        parts, end = [], 0
        for start, stop in spans:
            parts.append(self.text[end:start])
            end = stop
        if parts:
            self.text = COVERS[kind].join([*parts, self.text[end:]])
        return len(parts)

    def uncovered(self) -> str:
        """The text with the placeholders in place of the covers."""
        text = self.text
        for kind, placeholder in self.placeholders.items():
            text = text.replace(COVERS[kind], placeholder)
        if self.foreign:
            foreign = iter(self.foreign)
            text = re.sub(FOREIGN, lambda _: next(foreign), text)
        return text

"""Spans of personal data, and a text in which finds are covered.

The kinds are searched one after another. Each find is covered by a single character that no pattern matches; at the
end, placeholders replace these characters. Placeholders that are already in the text are covered too, because they may
look like personal data.
"""

import re
from collections.abc import Iterable
from typing import get_args

from data_prep.config.personal_data import PersonalDataKind

Span = tuple[int, int]
"""Start and end, in characters."""

COVERS = dict(zip(get_args(PersonalDataKind), map(chr, range(0xFDD0, 0xFDEF)), strict=False))
"""Noncharacters, which Unicode reserves for internal use: one per kind."""
FOREIGN = "\ufdef"
"""Replaces noncharacters that are in the text itself, which is rare and invalid."""
COVERED = "\ufdd0-\ufdef"
"""Range of all these characters, for use in a regex character class."""
NONCHARACTERS = re.compile(f"[{COVERED}]")


class Mask:
    """A text in which each find of personal data is replaced by one character that later searches do not match."""

    def __init__(self, text: str, placeholders: dict[str, str]):
        self.placeholders = placeholders
        self.foreign = NONCHARACTERS.findall(text)
        self.text = NONCHARACTERS.sub(FOREIGN, text) if self.foreign else text
        # longest first, so a placeholder that contains another one is covered as a whole
        for kind, placeholder in sorted(placeholders.items(), key=lambda item: -len(item[1])):
            self.text = self.text.replace(placeholder, COVERS[kind])

    def cover(self, kind: str, spans: Iterable[Span]) -> int:
        """Replace the sorted, non-overlapping spans of `self.text` by the character in COVERS for `kind`; return their
        number."""
        parts, end = [], 0
        for start, stop in spans:
            parts.append(self.text[end:start])
            end = stop
        if parts:
            self.text = COVERS[kind].join([*parts, self.text[end:]])
        return len(parts)

    def uncovered(self) -> str:
        """Return the text with a placeholder for each find."""
        text = self.text
        for kind, placeholder in self.placeholders.items():
            text = text.replace(COVERS[kind], placeholder)
        if self.foreign:
            foreign = iter(self.foreign)
            text = re.sub(FOREIGN, lambda _: next(foreign), text)
        return text

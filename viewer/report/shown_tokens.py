"""Tokens of the followed page for the report: colored by loss, with the predictions of the model."""

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm.tokenizer import Tokenizer
from viewer.report.followed import FollowedPage
from viewer.training_data import short, visible

if TYPE_CHECKING:  # imports JAX, which a page does not need
    from lm.evaluation.token_view import TokenView

BITS_PER_SHADE = 1.5
SHADES = 9
"""Number of background shades, from 0 (less than BITS_PER_SHADE bits) to SHADES - 1 (all larger values)."""

IN_SIGHT = 60
"""Tokens that are visible without scrolling."""


@dataclass(frozen=True)
class ShownToken:
    """One token of the passage."""

    space: str
    """Leading space, if a word follows: shown, but not colored."""
    text: str
    """The other bytes made visible, with spaces and line breaks; line breaks are also marked."""
    shade: int
    title: str
    """Tooltip, for readers without JavaScript."""


@dataclass(frozen=True)
class ShownTokens:
    """All tokens of the passage."""

    tokens: tuple[ShownToken, ...]
    data: str
    """JSON, one list per token: [text, bits, probability, rank, [[text, probability] of the most likely]]."""
    first: int
    """Index of the token to explain first: the visible one with the most bits, except the first few."""
    bits: float
    """Total bits."""
    text_bytes: int
    """Total bytes of the tokens."""
    guessed: int
    """Number of tokens that were the model's first guess."""

    @property
    def bits_per_byte(self) -> float:
        return self.bits / max(1, self.text_bytes)


def show_tokens(page: FollowedPage, view: "TokenView", tokenizer: Tokenizer) -> ShownTokens:
    """Build the tokens from page.ids[1:], which `view` has scored."""

    def name(id: int) -> str:
        return short(visible(tokenizer.token_bytes(id)))

    ids = page.ids[1:]
    shown, rows = [], []
    for number, id in enumerate(ids):
        nats, rank = float(view.losses[number]), int(view.ranks[number])
        bits, probability = nats / math.log(2), math.exp(-nats)
        pairs = zip(view.alternatives[number].tolist(), view.probabilities[number].tolist(), strict=True)
        rows.append([name(id), round(bits, 3), rounded(probability), rank, [[name(i), rounded(p)] for i, p in pairs]])
        text = visible(tokenizer.token_bytes(id)).replace("␣", " ").replace("⏎", "⏎\n")
        shade = min(SHADES - 1, int(bits / BITS_PER_SHADE)) if math.isfinite(bits) else SHADES - 1
        space = " " if text[0] == " " and text.strip() else ""
        shown.append(
            ShownToken(
                space, text.removeprefix(space), shade, f"{bits:.1f} bits, {100 * probability:.2g} %, rank {rank:,}"
            )
        )
    first = max(range(min(8, len(rows) - 1), min(IN_SIGHT, len(rows))), key=lambda number: rows[number][1])
    return ShownTokens(
        tokens=tuple(shown),
        data=json.dumps(finite(rows), separators=(",", ":")),
        first=first,
        bits=sum(row[1] for row in rows),
        text_bytes=len(tokenizer.decode_bytes(ids)),
        guessed=sum(row[3] == 1 for row in rows),
    )


def rounded(probability: float) -> float:
    """Round to four digits, to save bytes."""
    return float(f"{probability:.4g}")


def finite(rows: list[list]) -> list[list]:
    """Replace numbers that JSON cannot represent by 0: those of a model that diverged."""
    number = lambda value: value if not isinstance(value, float) or math.isfinite(value) else 0.0
    return [[*map(number, row[:-1]), [[text, number(p)] for text, p in row[-1]]] for row in rows]

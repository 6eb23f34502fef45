"""The tokens of the followed page as the report shows them: coloured by their loss, with what the model expected."""

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm.tokenizer import Tokenizer
from viewer.report.followed import FollowedPage
from viewer.training_data import short, visible

if TYPE_CHECKING:  # it comes with jax, for which a page has no use
    from lm.evaluation.token_view import TokenView

BITS_PER_SHADE = 1.5
SHADES = 9
"""Shades of a token's background, from 0 (less than BITS_PER_SHADE bits) to SHADES - 1 (all from there on)."""

IN_SIGHT = 60
"""Tokens that are seen without scrolling."""


@dataclass(frozen=True)
class ShownToken:
    """One token of the passage."""

    space: str
    """The space that it begins with, if a word follows: shown, but not coloured."""
    text: str
    """The rest of its bytes made visible, spaces and line breaks as they are; a line break is marked too."""
    shade: int
    title: str
    """What there is to say of it, for those who read without the page's script."""


@dataclass(frozen=True)
class ShownTokens:
    """All tokens of the passage."""

    tokens: tuple[ShownToken, ...]
    data: str
    """JSON, a list for each token: [text, bits, probability, rank, [[text, probability] of the likeliest]]."""
    first: int
    """Index of the token that is explained at first: the dearest one in sight, but for the first few."""
    bits: float
    """Of all of them together."""
    text_bytes: int
    """That they stand for."""
    guessed: int
    """Tokens that were the model's first guess."""

    @property
    def bits_per_byte(self) -> float:
        return self.bits / max(1, self.text_bytes)


def show_tokens(page: FollowedPage, view: "TokenView", tokenizer: Tokenizer) -> ShownTokens:
    """Of the tokens page.ids[1:], which `view` scored."""

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
    """To four digits: what is read off a screen, and no more bytes."""
    return float(f"{probability:.4g}")


def finite(rows: list[list]) -> list[list]:
    """The rows with 0 for what JSON cannot hold: the figures of a model that diverged."""
    number = lambda value: value if not isinstance(value, float) or math.isfinite(value) else 0.0
    return [[*map(number, row[:-1]), [[text, number(p)] for text, p in row[-1]]] for row in rows]

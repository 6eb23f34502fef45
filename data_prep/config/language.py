"""Knobs of language detection."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from data_prep.config.filters import Filter, Rule, Signal
from lm.errors import UsageError
from lm.fields import added, measured, within

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LANGUAGES = frozenset(
    """
    af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de diq
    dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is
    it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl
    my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh
    si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh
    """.split()  # noqa: SIM905 - as in data_prep/text/words.py
)
"""Of lid.176: ISO 639-1 codes, or 639-3 where there is none, and a few older ones ("als" is Alemannic)."""


@dataclass(frozen=True)
class LanguageConfig(Filter):
    """Language by fastText's lid.176 (arXiv:1607.01759)."""

    languages: tuple[str, ...]
    """ISO 639 codes that are kept; () for all."""
    min_score: float
    """The best language's probability must be above this (0 to 1)."""
    letters_only: bool = measured()
    """Score the letters alone, without digits and punctuation, which draw probability away from every language."""
    line_breaks: Literal["blank", "nothing"] = added(default="blank", measured=True)
    """What stands for a line break, since the model reads one line: a blank, or nothing, which joins two words."""
    check_script: bool = added(default=True, measured=True)
    """Whether a text with more letters of other scripts than Latin ones is one of those languages that use them,
    whatever the model says."""

    name = "language"
    title = "Language"
    summary = "A classifier of 176 languages (fastText's lid.176, arXiv:1607.01759) names the likeliest."
    signals = (Signal("language_score", "Certainty of the language", "The probability of the likeliest language."),)
    rules = (Rule("low_language_score", "language_score", "at most", "min_score"),)
    other_reasons = (("other_language", "The likeliest language is not among those wanted."),)

    def __post_init__(self):
        super().__post_init__()
        within(self, "documents.language", 0, 1, "min_score")
        if unknown := [code for code in self.languages if code not in LANGUAGES]:
            near = difflib.get_close_matches(unknown[0].lower(), sorted(LANGUAGES), 1)
            raise UsageError(
                f"documents.language.languages has {unknown[0]!r}, which is none of lid.176's {len(LANGUAGES)} codes "
                f"(data_prep/config/language.py). {f'Did you mean {near[0]!r}?' if near else 'English is en.'}"
            )

    def other_checks(self, rows: "pa.RecordBatch | pa.Table") -> Iterator[tuple[str, "np.ndarray"]]:
        import numpy as np

        if self.languages:
            wanted = frozenset(self.languages)
            others = (language not in wanted for language in rows["language"].to_pylist())
            yield "other_language", np.fromiter(others, bool, rows.num_rows)

import dataclasses

import numpy as np
import pytest

from configs.recipes import gristmill as recipe
from data_prep.config import DocumentsConfig, Rule
from data_prep.measure.row import measure
from data_prep.verdict import thresholds_of
from tests.data_prep.measured import TABLE, THRESHOLDS, verdict_on
from tests.data_prep.pages import PROSE, demo_config

STEPS = ("gopher_repetition", "gopher_quality", "c4", "fineweb")
CONFIG = demo_config(
    steps=STEPS,
    gopher_repetition=recipe.GOPHER_REPETITION,
    gopher_quality=dataclasses.replace(recipe.GOPHER_QUALITY, max_words=1000),  # for a short text that is too long
    c4=recipe.C4,
    fineweb=recipe.FINEWEB,
)
VERBS, NOUNS = ("saw", "built", "sold", "found", "lost"), ("mill", "cart", "road", "river", "bridge", "oven", "sack")


def sentences(count: int, end: str = ".") -> list[str]:
    """Prose without repetition: each sentence has words of its own."""
    return [
        f"The miller number{i} {VERBS[i % 5]} the {NOUNS[i % 7]} of baker{i} and went to town{i} with grain{i}{end}"
        for i in range(count)
    ]


def numbered(word: str, count: int, between: str = " ") -> str:
    """A word `count` times, each time with another number."""
    return between.join(f"{word}{i}" for i in range(count))


def phrases_twice(n: int, share: float) -> str:
    """Three phrases of n words, each twice, and other words: the second time they are that share of the text."""
    phrases = [" ".join(f"word{i:04}" for i in range(place, place + n)) for place in (0, 100, 200)]
    others = [f"mill{i:04}" for i in range(round(3 * n * 8 / 9 / share) - 6 * n)]
    return " ".join([*(f"{phrase} {other}" for phrase, other in zip(phrases * 2, others, strict=False)), *others[6:]])


LONG = " ".join(sentences(20))
TEXTS = {
    "gopher_duplicate_paragraphs": "\n\n".join(["abc"] * 3) + "\n\n" + LONG,
    "gopher_duplicate_paragraph_characters": "\n\n".join([*map(str, range(8)), *sentences(2), *sentences(2)]),
    "gopher_duplicate_lines": "\n".join(["abc"] * 3) + "\n" + LONG,
    "gopher_duplicate_line_characters": "\n".join([*map(str, range(8)), *sentences(2), *sentences(2)]),
    "gopher_top_2_gram": " ".join(f"of the w{i}" for i in range(80)),
    "gopher_top_3_gram": " ".join(f"in of the bread{i:03} and{i:03} old{i:03}" for i in range(40)),
    "gopher_top_4_gram": " ".join(
        f"in of the to bread{i:03} mill{i:03} road{i:03} old{i:03} river{i:03} and{i:03}" for i in range(40)
    ),
    **{f"gopher_duplicate_{n}_grams": phrases_twice(n, 0.21 - n / 100) for n in range(5, 11)},
    "gopher_short_document": PROSE[:120],
    "gopher_long_document": numbered("w", 1001),
    "gopher_below_mean_word_length": " ".join(first + second for first in "abcdefgh" for second in "abcdefgh"),
    "gopher_above_mean_word_length": numbered("understanding", 60),
    "gopher_too_many_hashes": numbered("mill", 60, " # "),
    "gopher_too_many_ellipses": numbered("mill", 60, " … "),
    "gopher_too_many_bullet_lines": "\n".join(
        f"- mill{i} and baker{i} went to town{i} with grain{i}" for i in range(20)
    ),
    "gopher_too_many_ellipsis_lines": "\n".join(sentences(20, "...")),
    "gopher_too_few_words_with_letter": LONG + " " + " ".join(map(str, range(1000, 1120))),
    "gopher_too_few_stop_words": numbered("mill", 60),
    "c4_lorem_ipsum": LONG + "\nLorem ipsum dolor sit amet",
    "c4_curly_bracket": LONG + "\nint main() { return }",
    "c4_too_few_sentences": " ".join(sentences(4)) + "\nThe end.",
    "fineweb_too_few_terminal_punctuation_lines": "\n".join([LONG, *sentences(40, "")[20:]]),
    "fineweb_too_many_short_lines": "\n".join([*sentences(8), *(f"The mill{i} and{i} road{i}." for i in range(20))]),
    "fineweb_duplicate_line_characters": "\n".join([*sentences(20), sentences(1)[0]]),
    "fineweb_too_many_newlines": "\n".join(
        f"{('with', 'that')[i % 2]} oldmill{i:05} goodbaker{i:04}{'.' * (i % 7 == 0)}" for i in range(28)
    ),
}
"""For each rule a text that it is the first to drop."""


@pytest.mark.parametrize("reason", [rule.reason for _, rule in THRESHOLDS])
def test_every_rule_drops_its_text_under_its_name(reason):
    stage, rule = next((stage, rule) for stage, rule in THRESHOLDS if rule.reason == reason)
    values = measure(TEXTS[reason], CONFIG)
    assert verdict_on({**at_thresholds(CONFIG), rule.signal: values[rule.signal]}, CONFIG) == (stage, reason)
    assert verdict_on(values, CONFIG) == (stage, reason)


def test_prose_breaks_none():
    assert verdict_on(measure(LONG, CONFIG), CONFIG) is None


def at_thresholds(config: DocumentsConfig) -> dict[str, float]:
    """Values that lie at a threshold each; where a signal has two, at the lower."""
    values: dict[str, float] = {}
    for stage, rule in THRESHOLDS:
        values.setdefault(rule.signal, float(rule.limit(getattr(config, stage))))
    return values


def test_the_table_is_whole():
    assert len({rule.reason for _, rule in TABLE}) == len(TABLE)
    assert list(dict.fromkeys(stage for stage, _ in TABLE)) == list(STEPS)
    thresholds = [(stage, rule.option, rule.place, rule.signal) for stage, rule in THRESHOLDS]
    assert len(set(thresholds)) == len(THRESHOLDS)
    for _, rule in THRESHOLDS:
        assert rule.option.startswith({"below": "min_", "above": "max_"}[rule.drops])
    for stage in STEPS:  # every threshold in the config has its rule
        section = getattr(CONFIG, stage)
        fields = {field.name for field in dataclasses.fields(section) if not field.metadata.get("measured")}
        fields -= {rule.limit_falls for own, rule in THRESHOLDS if own == stage}
        assert fields == {rule.option for own, rule in THRESHOLDS if own == stage}
        for name in fields:
            value = getattr(section, name)
            places = [rule.place for own, rule in THRESHOLDS if (own, rule.option) == (stage, name)]
            if isinstance(value, tuple):
                assert places == list(range(len(value)))


@pytest.mark.parametrize(("stage", "rule"), THRESHOLDS, ids=[rule.reason for _, rule in THRESHOLDS])
def test_a_value_at_its_threshold_passes_and_one_beyond_does_not(stage: str, rule: Rule):
    values = at_thresholds(CONFIG)
    assert verdict_on(values, CONFIG) is None
    threshold = float(rule.limit(getattr(CONFIG, stage)))
    beyond = np.nextafter(threshold, -np.inf if rule.drops == "below" else np.inf)
    assert verdict_on({**values, rule.signal: float(beyond)}, CONFIG) == (stage, rule.reason)


@pytest.mark.parametrize("steps", [(), ("c4",), ("gopher_repetition", "fineweb"), (*STEPS, "exact_dedup")])
def test_only_the_steps_in_use_count(steps):
    config = dataclasses.replace(CONFIG, steps=steps)
    drawn = [one.reason for one in thresholds_of(config, None) if one.stage != "language"]
    assert drawn == [rule.reason for stage, rule in THRESHOLDS if stage in steps]
    for stage, rule in THRESHOLDS:
        far = -1.0 if rule.drops == "below" else 1e9
        verdict = verdict_on({**at_thresholds(config), rule.signal: far}, config)
        assert (verdict is not None) == (stage in steps)

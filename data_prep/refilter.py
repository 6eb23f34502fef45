"""The funnel under other thresholds, from what was measured: no page is read again, and of the texts nothing at all.

What needs other documents, deduplication, is not repeated: what passes here still has its duplicates among it.
"""

import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from data_prep.config import DocumentsConfig
from data_prep.documents import stage_order
from data_prep.files import replace_file
from data_prep.funnel import Counts, count_rows, empty_counts, merge
from data_prep.over_files import run_over_files
from data_prep.quality.rules import RULES
from data_prep.report import Written
from data_prep.score_threshold import lowest_score
from data_prep.verdict import Threshold, columns_needed, read_measured, thresholds_of, values_of, verdicts

DUPLICATES = ("exact_dedup", "minhash_dedup")
"""Stages that are not repeated."""


ORDER = {(rule.stage, rule.reason): number for number, rule in enumerate(RULES)}


@dataclass(frozen=True)
class CountedFile:
    """A file of texts/ and where its counts go."""

    index: int
    texts: Path
    counts: Path

    @property
    def bytes(self) -> int:
        return self.texts.stat().st_size


def count_again(texts: list[Path], config: DocumentsConfig, scratch: Path) -> tuple[Counts, float | None]:
    """(the counts of all files under the thresholds of `config`, the lowest score that the quality model may give).

    The settings that decide what was measured must be those of the run: see DocumentsConfig.of_texts. `scratch` is
    emptied before and deleted after. Raises InputError when a file cannot be read.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    min_quality = lowest_score(texts, config, scratch / "scores")
    files = [CountedFile(index, path, scratch / f"{index:06d}.json") for index, path in enumerate(texts)]
    run_over_files(functools.partial(count_file, config=config, min_quality=min_quality), files, config)
    counts = merge(json.loads(file.counts.read_text(encoding="utf-8")) for file in files)
    shutil.rmtree(scratch)
    return counts, min_quality


def count_file(file: CountedFile, config: DocumentsConfig, min_quality: float | None) -> None:
    """Writes the counts of one file."""
    parts, first, thresholds = [empty_counts()], 0, thresholds_of(config, min_quality)
    names = ("id", "url", "language", "text_bytes")
    for rows in read_measured(file.texts, list(dict.fromkeys([*columns_needed(config), *names]))):
        columns = {name: rows[name].to_pylist() for name in names}
        found, values = verdicts(rows, config, min_quality), values_of(rows, thresholds)
        parts.append(count_rows(columns, values, found, (file.index, first), thresholds))
        first += rows.num_rows
    replace_file(file.counts, json.dumps(merge(parts)).encode(), scratch=file.counts.parent)


def changed_thresholds(before: list[Threshold], after: tuple[Threshold, ...]) -> list[str]:
    """A line for each threshold that is drawn elsewhere than in the run, or in one of the two alone."""
    olds, news = ({(one.stage, one.reason): one for one in many} for many in (before, after))
    lines = []
    for name in sorted({*olds, *news}, key=place_of):
        old, new = olds.get(name), news.get(name)
        if old and new and old.value == new.value:
            continue
        option = next(one.option for one in (new, old) if one)
        was, now = (f"{one.value:.6g}" if one else "not used" for one in (old, new))
        lines.append(f"  {option}: {was} in the run, now {now}  ({name[1]})")
    return lines


def comparison(before: Written | None, counts: Counts, thresholds: tuple[Threshold, ...]) -> str:
    """What to tell the terminal: the thresholds that changed, and how many documents each rule dropped and would drop.

    `before` is the run's own funnel, None where there is none yet.
    """
    lines, columns = [], [passing(counts)]
    if before:
        columns.insert(0, passing(before.counts))
        changed = changed_thresholds(before.thresholds, thresholds)
        lines += ["Changed:", *changed, ""] if changed else ["The thresholds are the run's own.", ""]
    lines += [*table(columns), "A document is counted under the first rule that it breaks."]
    if before:
        duplicates = sum(dropped_as(DUPLICATES, before.counts).values())
        lines.append(f"{duplicates:,} of those that passed were duplicates in the run. They are not looked for again.")
    return "\n".join(lines)


def dropped_as(stages: tuple[str, ...], counts: Counts) -> dict[tuple[str, str], int]:
    """{(stage, reason): documents} of what was dropped in those stages."""
    named = ((*name.split("/", 1), pair[0]) for name, pair in counts["reasons"].items())
    return {(stage, reason): documents for stage, reason, documents in named if stage in stages}


def passing(counts: Counts) -> dict[tuple[str, str], int]:
    """{(stage, reason): documents dropped}, with the pages under ("pages", "") and what passes all rules under
    ("pass all rules", ""), duplicates among it."""
    stages = {name.split("/", 1)[0] for name in counts["reasons"]}
    dropped = dropped_as(tuple(stages - {*DUPLICATES}), counts)
    return {("pages", ""): counts["rows"], **dropped, ("pass all rules", ""): counts["rows"] - sum(dropped.values())}


def table(columns: list[dict[tuple[str, str], int]]) -> list[str]:
    """Lines with a number of each column, and how the second differs from the first."""
    first, last = ("pages", ""), ("pass all rules", "")
    names = [first, *sorted({*columns[0], *columns[-1]} - {first, last}, key=place_of), last]
    stages = max(len(stage) for stage, _ in names)
    reasons = max(len(reason) for _, reason in names)
    heads = ["in the run", "now", "change"] if len(columns) > 1 else ["now"]
    lines = [f"{'':<{stages}}  {'dropped':<{reasons}}" + "".join(f" {head:>13}" for head in heads)]
    for name in names:
        numbers = [column.get(name, 0) for column in columns]
        change = numbers[-1] - numbers[0]
        cells = [f"{number:,}" for number in numbers] + [f"{change:+,}" if change else ""] * (len(columns) > 1)
        lines.append(f"{name[0]:<{stages}}  {name[1]:<{reasons}}" + "".join(f" {cell:>13}" for cell in cells))
    return [line.rstrip() for line in lines]


def place_of(name: tuple[str, str]) -> tuple:
    """A key that sorts (stage, reason) in the order of the stages, and rules as they are applied."""
    return stage_order(name[0]), ORDER.get(name, len(ORDER)), name[1]

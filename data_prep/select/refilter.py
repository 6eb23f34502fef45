"""Recompute the funnel for other thresholds from stored measurements, without reading pages or texts. Deduplication and
later steps are not repeated, so documents that pass here still include their duplicates."""

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_prep.config import DocumentsConfig, EngineConfig
from data_prep.config.documents import AFTER_DEDUP, DEDUP
from data_prep.engine import OnProgress, Workspace
from data_prep.engine.tasks import FileRunner, StoredFile, allow_no_failures, files_of
from data_prep.funnel.counts import Counts, append_counts, count_rows, empty_counts, merge
from data_prep.funnel.report import Written
from data_prep.select.apply_filters import merge_counts
from data_prep.select.filtered import texts_files
from data_prep.select.keep_share import with_min_scores
from data_prep.verdict import Threshold, columns_needed, languages_of, read_measured, thresholds_of, values_of, verdicts
from lm.storage import write_atomically

NOT_REPEATED = {*DEDUP, *AFTER_DEDUP}
"""Stages that compare documents with others or with evaluation sets. `count_again` does not repeat them."""


@dataclass(frozen=True)
class Recounted:
    counts: Counts
    files: dict[int, str]
    """{number of a file in `counts`: its name in texts/}."""
    config: DocumentsConfig
    """The config of the counts, with the minimum scores that keep_share gives."""


def count_again(
    texts: Path, config: DocumentsConfig, scratch: Path, on_progress: OnProgress, engine: EngineConfig
) -> Recounted:
    """Count the kept and dropped documents of all files of `texts` with the thresholds of `config`. All settings that
    affect measured values (DocumentsConfig.of_texts) must equal those of the run. `scratch` is emptied first and
    deleted at the end. Raises InputError if a file cannot be read."""
    texts, scratch = texts.absolute(), scratch.absolute()
    shutil.rmtree(scratch, ignore_errors=True)
    files = texts_files(texts)
    run = FileRunner(scratch, allow_no_failures(engine, len(files)), on_progress)
    _, config = with_min_scores(files, config, run)
    _, counted = run("counting", files, functools.partial(count_file, config=config), config)
    counts = merge_counts(files_of(counted.values(), "counts/"), run)
    shutil.rmtree(scratch)
    return Recounted(counts, {file.id: file.path.name for file in files}, config)


def count_file(file: StoredFile, space: Workspace, config: DocumentsConfig) -> None:
    parts, first, thresholds = [empty_counts()], 0, thresholds_of(config)
    names = ("id", "url", "language", "text_bytes")
    for rows in read_measured(file.path, list(dict.fromkeys([*columns_needed(config), *names]))):
        columns = {name: rows[name].to_pylist() for name in names}
        found, values = verdicts(rows, config), values_of(rows, thresholds)
        labels = languages_of(rows, config)
        append_counts(parts, count_rows(columns, values, found, (file.id, first), thresholds, labels))
        first += rows.num_rows
        space.count(rows.num_rows)
    write_atomically(space.output(f"counts/{file.name}.json"), json.dumps(merge(parts)))


def changes(before: Written, config: DocumentsConfig) -> list[str]:
    """Return a line of text per threshold that differs between the run (`before`) and `config`, or is in only one."""
    lines = changed_thresholds(before.thresholds, thresholds_of(config), config)
    if set(before.languages_kept) != set(config.language.languages):
        was, is_now = (", ".join(one) or "all" for one in (before.languages_kept, config.language.languages))
        lines.append(f"  documents.language.languages: {was} in the run, now {is_now}  (other_language)")
    return lines


def changed_thresholds(before: list[Threshold], after: tuple[Threshold, ...], config: DocumentsConfig) -> list[str]:
    """Return a line of text for each threshold that changed."""
    olds, news = ({(one.stage, one.reason): one for one in many} for many in (before, after))
    lines = []
    for name in sorted({*olds, *news}, key=place_in(config)):
        old, new = olds.get(name), news.get(name)
        option = next(one.option for one in (new, old) if one)
        own = [one.by_language if one else {} for one in (old, new)]
        for label in sorted({*own[0], *own[1]}):
            was, now = (f"{one[label]:.6g}" if label in one else "not used" for one in own)
            lines += [f"  {option}: {was} for {label} in the run, now {now}  ({name[1]})"] if was != now else []
        if old and new and old.value == new.value:
            continue
        was, now = (f"{one.value:.6g}" if one else "not used" for one in (old, new))
        lines.append(f"  {option}: {was} in the run, now {now}  ({name[1]})")
    return lines


def comparison(before: Written | None, changed: list[str], counts: Counts, config: DocumentsConfig) -> str:
    """Return the text to print: changed thresholds, and how many documents each rule dropped in the run and drops now.
    `before` is the run's funnel.json, or None; `changed` is from `changes`, `counts` from `count_again`."""
    lines, columns = [], [passing(counts)]
    if before:
        columns.insert(0, passing(before.counts))
        lines += ["Changed:", *changed, ""] if changed else ["The thresholds are the run's own.", ""]
    lines += [*table(columns, config), "A document counts for the first rule that rejects it."]
    if before:
        duplicates = sum(dropped_as(DEDUP, before.counts).values())
        passed = "passed the stage language" if config.minhash.before_filters else "passed"
        counted = ", and are counted under the rules" if config.minhash.before_filters else ""
        lines.append(
            f"{duplicates:,} of those that {passed} were duplicates in the run. They are not searched again{counted}."
        )
    return "\n".join(lines)


def dropped_as(stages: tuple[str, ...], counts: Counts) -> dict[tuple[str, str], int]:
    """Return {(stage, reason): number of documents} that these stages dropped."""
    named = ((*name.split("/", 1), pair[0]) for name, pair in counts["reasons"].items())
    return {(stage, reason): documents for stage, reason, documents in named if stage in stages}


def passing(counts: Counts) -> dict[tuple[str, str], int]:
    """Return {(stage, reason): number of dropped documents}, without the stages NOT_REPEATED (deduplication and later).
    Two more keys are ("pages", ""), for all pages, and ("pass all rules", ""), for documents that pass."""
    stages = {name.split("/", 1)[0] for name in counts["reasons"]}
    dropped = dropped_as(tuple(stages - NOT_REPEATED), counts)
    return {("pages", ""): counts["rows"], **dropped, ("pass all rules", ""): counts["rows"] - sum(dropped.values())}


def table(columns: list[dict[tuple[str, str], int]], config: DocumentsConfig) -> list[str]:
    """Return the lines of a table: for each (stage, reason) the number in each of one or two columns, and their
    difference."""
    first, last = ("pages", ""), ("pass all rules", "")
    names = [first, *sorted({*columns[0], *columns[-1]} - {first, last}, key=place_in(config)), last]
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


def place_in(config: DocumentsConfig) -> Callable[[tuple[str, str]], tuple]:
    """Return a sort key for (stage, reason) that gives the order in which stages and rules are applied."""
    rules = [(one.name, rule.reason) for one in config.all_filters for rule in one.rules]
    order = {name: number for number, name in enumerate(rules)}
    return lambda name: (config.stage_order(name[0]), order.get(name, len(order)), name[1])

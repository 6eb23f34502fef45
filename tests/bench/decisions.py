"""Agreement of our recipes with datatrove, at the commit that each follows.

    git -C DATATROVE archive 05194d39 -- src/datatrove | tar -x -C /tmp/datatrove_2024     (its assets: docs/recipes.md)
    python -m tests.bench.decisions --python /tmp/peer/bin/python --source /tmp/datatrove_2024/src
    python -m tests.bench.decisions --python /tmp/peer/bin/python [--run RUN_OF_THE_DEMO]

The first command compares with datatrove of April 2024, the second with the installed 0.10. Both sides get the same
texts, URLs, personal data and copies (decisions_texts.py) and the language model lid.176.ftz. Prints the share of equal
verdicts and reasons for each filter, for all four in a row, for language, URLs and personal data, whether copies are
grouped alike, and disagreements with both reasons and our value.
"""

import dataclasses
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

from configs.demo import get_config
from configs.recipes import datatrove_0_10, fineweb_2024, gristmill
from data_prep.config import DocumentsConfig
from data_prep.dedup.minhash import band_keys
from data_prep.documents import Document
from data_prep.language import detect_language
from data_prep.measure.row import measure, text_schema
from data_prep.pii import replace_personal_data
from data_prep.url_filter.filter import reject_reason
from data_prep.verdict import verdicts
from tests.bench import decisions_texts
from tests.bench.runner import SkippedError, run_benchmark

STAGES = ("gopher_repetition", "gopher_quality", "c4", "fineweb")
URL_REASONS = {
    "domain": "banned_domain",
    "subdomain": "banned_domain",
    "url": "banned_url",
    "hard_blacklisted": "banned_word",
    "soft_blacklisted": "soft_banned_words",
    "blacklisted_subword": "banned_substring",
}
"""{datatrove's reason: ours}."""


def fineweb_config(recipe: ModuleType = gristmill) -> DocumentsConfig:
    """The four quality filters of a recipe, and its language."""
    filters = {one.name: one for one in recipe.FILTERS}
    return dataclasses.replace(get_config().documents, steps=STAGES, language=recipe.LANGUAGE, **filters)


def compare(rows: list[dict[str, str]], config: DocumentsConfig) -> dict[str, object]:
    """Compare our decisions with those of datatrove: {"url", "decision": "kept" or the filter's name, "reason",
    "text"}."""
    start = time.process_time()
    measured = [{"language": "en", "language_score": 1.0, **measure(row["text"], config)} for row in rows]
    found = verdicts(pa.Table.from_pylist(measured, text_schema(config)), config)
    seconds = time.process_time() - start
    signals = {(one.name, rule.reason): rule.signal for one in config.filters for rule in one.rules if rule.option}
    names = {rule.reason: rule.datatrove for one in config.filters for rule in one.rules}
    names["c4_no_lines"] = "too_few_sentences"
    same_stage, same_reason, disagreements = 0, 0, []
    for row, values, verdict in zip(rows, measured, found, strict=True):
        ours, reason = verdict or ("kept", "kept")
        same_stage += ours == row["decision"]
        same_reason += names.get(reason, "") == (row["reason"] or "")
        if (ours == "kept") != (row["decision"] == "kept"):
            signal = signals.get((ours, reason))
            value = {"value": values[signal]} if signal else {}
            disagreements.append({"url": row["url"], "ours": reason, **value, "datatrove": row["reason"] or "kept"})
    return {
        "documents": len(rows),
        "same_verdict": round(1 - len(disagreements) / len(rows), 5),
        "same_stage": round(same_stage / len(rows), 5),
        "same_reason": round(same_reason / len(rows), 5),
        "documents_per_cpu_second": round(len(rows) / seconds),
        "disagreements": disagreements,
    }


def compare_filters(asked: dict, answers: dict, names: list[str], recipe: ModuleType) -> dict[str, dict[str, object]]:
    """Compare each filter separately, then all in sequence."""
    texts, config = asked["texts"], fineweb_config(recipe)
    found = {}
    for stage in STAGES:
        rows = [
            {"url": names[index], "decision": stage if reason else "kept", "reason": reason, "text": texts[index]}
            for index in range(len(texts))
            for reason in [answers["filters"][index][stage]]
        ]
        found[stage] = compare(rows, dataclasses.replace(config, steps=(stage,)))
    rows = [
        {"url": names[index], "decision": decision, "reason": reason, "text": texts[index]}
        for index in range(len(texts))
        for decision, reason in [answers["chain"][index] or ("kept", "")]
    ]
    return found | {"all four": compare(rows, config)}


def compare_language(asked: dict, answers: dict, names: list[str], recipe: ModuleType) -> dict[str, object]:
    config = dataclasses.replace(fineweb_config(recipe), steps=())
    documents = [
        detect_language(Document(text, "", "", "", "", "", "", 0.0), recipe.LANGUAGE) for text in asked["texts"]
    ]
    table = pa.Table.from_pylist([dataclasses.asdict(one) for one in documents], text_schema(config))
    found = [verdict is None for verdict in verdicts(table, config)]
    shown = [f"{one.language} {one.language_score}" for one in documents]
    return agreement(names, found, [answer is None for answer in answers["language"]], shown)


def agreement(names: Sequence[str], ours: Sequence, theirs: Sequence, shown: Sequence[str] = ()) -> dict[str, object]:
    differing = [index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
    return {
        "documents": len(names),
        "same": round(1 - len(differing) / len(names), 5),
        "disagreements": [
            {"url": names[index], "ours": ours[index], "datatrove": theirs[index]}
            | ({"value": shown[index]} if shown else {})
            for index in differing
        ],
    }


def groups(keys: list[Sequence]) -> set[frozenset[int]]:
    """Clusters of documents that share a key directly or through others."""
    root = list(range(len(keys)))

    def find(one: int) -> int:
        while root[one] != one:
            one = root[one]
        return one

    first: dict[object, int] = {}
    for index, mine in enumerate(keys):
        for key in mine:
            root[find(index)] = find(first.setdefault(key, index))
    clusters: dict[int, list[int]] = {}
    for index in range(len(keys)):
        clusters.setdefault(find(index), []).append(index)
    return {frozenset(cluster) for cluster in clusters.values()}


def compare_all(asked: dict, answers: dict, names: list[str], recipe: ModuleType) -> dict[str, dict[str, object]]:
    found = compare_filters(asked, answers, names, recipe)
    found["language"] = compare_language(asked, answers, names, recipe)
    reasons = [reject_reason(url, recipe.URL_FILTER) for url in asked["urls"]]
    found["urls"] = agreement(asked["urls"], reasons, [URL_REASONS.get(reason) for reason in answers["urls"]])
    config = dataclasses.replace(recipe.PERSONAL_DATA, email_placeholder="<email>", ip_placeholder="<ip>")
    replaced = [replace_personal_data(text, config)[0] for text in asked["personal"]]
    found["personal data"] = agreement(asked["personal"], replaced, answers["personal"])
    ours = groups([band_keys(text, "", recipe.MINHASH) or () for text in asked["copies"]])
    theirs = groups(answers["copies"])
    found["clusters"] = {"documents": len(asked["copies"]), "clusters": len(theirs), "same": len(ours & theirs)}
    return found


def main(
    python: Path | None = None, source: Path | None = None, run: Path | None = None, shown: int = 10
) -> Iterator[dict[str, Any]]:
    """Args:
    python: Python of an environment with datatrove.
    source: src/ of datatrove at 05194d39; by default 0.10 is installed.
    run: Run folder of the demo; its texts are compared too.
    shown: Disagreements of each kind in a row.
    """
    if python is None or not python.exists():
        raise SkippedError("give --python of an environment with datatrove")
    recipe = fineweb_2024 if source else datatrove_0_10
    texts = decisions_texts.texts(run)
    asked = {
        "texts": list(texts.values()),
        "urls": decisions_texts.urls(recipe.URL_FILTER, 3_000),
        "personal": decisions_texts.personal(1_500),
        "copies": decisions_texts.copies(60),
    }
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "asked.json", Path(folder) / "answers.json"
        question.write_text(json.dumps(asked), encoding="utf-8")
        path = os.pathsep.join([*([str(source)] if source else []), os.fspath(Path.cwd())])
        command = [python, "-m", "tests.bench.decisions_peer", question, answer]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path})
        answers = json.loads(answer.read_text(encoding="utf-8"))
    for name, found in compare_all(asked, answers, list(texts), recipe).items():
        disagreements: Any = found.pop("disagreements", [])
        yield {"recipe": recipe.__name__, "of": name, **found, "disagreements": disagreements[:shown]}


if __name__ == "__main__":
    run_benchmark(main)

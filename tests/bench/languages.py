"""Agreement with FineWeb-2 in ten languages: detection, words, stop words and filters, compared with datatrove.

    python -m tests.bench.languages --thresholds CONFIGS [--peer PYTHON] [--documents 200] [--pages PAGES.tar.xz]

CONFIGS is configs/ of huggingface/fineweb-2; `make languages` installs the libraries. PYTHON has datatrove 0.10.1,
spacy, jieba, pyvi, sudachipy, sudachidict-core, pythainlp and indic-nlp-library. Documents are made of real sentences
(../shared), some repeated, shortened, listed or mixed with numbers, so that every rule drops some; with --pages they
are web pages in folders de, fr and so on.

Prints a JSON line per language: share of documents and sentences identified correctly, share of documents kept, mean
number of stop words, characters per word, documents per CPU-second; with the peer, the ratio of words, shares of equal
verdicts and reasons, and disagreements.
"""

import json
import os
import random
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from configs.recipes import fineweb_2 as recipe
from configs.recipes.gristmill import URL_FILTER_WITHOUT_LISTS
from data_prep.by_language import with_thresholds
from data_prep.by_language.splitters import splitter_of
from data_prep.config import DocumentsConfig
from data_prep.documents import Document, WebPage
from data_prep.extract import extract_text
from data_prep.language import detect_language
from data_prep.measure.row import measure, text_schema
from data_prep.verdict import verdicts
from lm.errors import InputError
from tests.bench.language import SENTENCES
from tests.bench.runner import SkippedError, require_file, run_benchmark

CODES = dict(zip(recipe.TEN_LANGUAGES, ("zh", "ja", "ar", "hi", "th", "ru", "de", "es", "vi", "sw"), strict=True))
PAGES = {"de": "deu_Latn", "es": "spa_Latn", "fr": "fra_Latn", "ja": "jpn_Jpan", "pt-br": "por_Latn", "ru": "rus_Cyrl",
         "tr": "tur_Latn", "zh-cn": "cmn_Hani"}  # fmt: skip
"""{folder of pages: language}."""
PEER = Path(__file__).with_name("languages_peer.py")
SHOWN = 5
"""Disagreements per language that are printed in full."""


def sentences_of(archive: Path) -> dict[str, list[str]]:
    """{"deu_Latn": sentences}."""
    with tarfile.open(archive) as opened:
        texts = {
            Path(member.name).stem: file.read().decode()
            for member in opened
            if (file := opened.extractfile(member)) is not None and Path(member.name).stem in CODES.values()
        }
    return {label: [line.strip() for line in texts[code].splitlines() if line.strip()] for label, code in CODES.items()}


def pages_of(archive: Path, config: DocumentsConfig) -> dict[str, list[str]]:
    """{"deu_Latn": main texts of the pages}."""
    texts: dict[str, list[str]] = {}
    with tarfile.open(archive) as opened:
        for member in opened:
            label, file = PAGES.get(member.name.split("/")[0]), opened.extractfile(member)
            if label and file is not None:
                page = WebPage("http://a.example/", "", "", "text/html; charset=utf-8", file.read(), "")
                text, _ = extract_text(page, config.extract)
                texts.setdefault(label, []).extend([text] if text else [])
    return texts


def made_documents(sentences: list[str], count: int, seed: int = 0) -> list[str]:
    """Documents made of `sentences`, every other one unmodified."""
    draw = random.Random(seed)
    return [
        disturbed(draw.choices(sentences, k=draw.randint(6, 40)), number // 2 if number % 2 else 0, draw)
        for number in range(count)
    ]


def disturbed(chosen: list[str], kind: int, draw: random.Random) -> str:
    """One document, modified in a way chosen by the number `kind`."""
    lines = [" ".join(chosen[start : start + 4]) for start in range(0, len(chosen), 4)]
    part = draw.randint(1, len(lines))
    match kind % 10:
        case 1:
            lines += lines[:part]
        case 2:
            lines = chosen
        case 3:
            lines = [line[: draw.randint(3, 20)] for line in chosen]
        case 4:
            lines = chosen[: draw.randint(1, 6)]
        case 5:
            lines += [f"{draw.randint(0, 99_999)}" for _ in range(draw.randint(1, 60))]
        case 6:
            lines = [f"• {line}" if draw.random() < 0.9 else line for line in chosen]
        case 7:
            lines = [f"{line[:40]}..." if draw.random() < 0.35 else line for line in chosen]
        case 8:
            lines = lines[:2] + [chosen[0][:15]] * draw.randint(1, 40)
        case 9:
            lines = [line.rstrip(".。।؟?!") if draw.random() < 0.9 else line for line in lines]
    return "\n".join(lines)


def decided(texts: list[str], label: str, config: DocumentsConfig) -> tuple[list[tuple[str, str]], list[dict], float]:
    """Return (stage, datatrove's name of the reason) of each text, ("", "") if kept; the values; and CPU seconds."""
    start = time.process_time()
    language, script = label.split("_")
    rows = [
        {"language": language, "language_script": script, "language_score": 1.0, **measure(text, config, label)}
        for text in texts
    ]
    found = verdicts(pa.Table.from_pylist(rows, text_schema(config)), config)
    seconds = time.process_time() - start
    names = {(one.name, rule.reason): rule.datatrove for one in config.filters for rule in one.rules}
    return [(verdict[0], names.get(verdict, verdict[1])) if verdict else ("", "") for verdict in found], rows, seconds


def peer_decisions(texts: list[str], label: str, python: str, thresholds: str) -> list[dict]:
    """Return the verdicts of datatrove."""
    lines = "".join(json.dumps({"label": label, "text": text}) + "\n" for text in texts)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # which is ours
    command = [python, "-P", str(PEER), thresholds]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, encoding="utf-8", env=environment)
    if done.returncode:
        raise InputError(f"datatrove failed on {label}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def compared(texts: list[str], ours: list[tuple[str, str]], theirs: list[dict], label: str) -> dict[str, object]:
    """Shares from 0 to 1, rounded to 4 digits, and the disagreements."""
    splitter = splitter_of(label)
    first = [next(((stage, why) for stage, why in one["reasons"].items() if why), ("", "")) for one in theirs]
    same = [bool(a[0]) == bool(b[0]) for a, b in zip(ours, first, strict=True)]
    equal = [a == b for a, b in zip(ours, first, strict=True)]
    apart = [
        {"text": text[:60], "ours": a[1] or "kept", "datatrove": b[1] or "kept"}
        for text, a, b, one in zip(texts, ours, first, same, strict=True)
        if not one
    ]
    words = sum(len(splitter(text)) for text in texts) / sum(one["words"] for one in theirs)
    return {
        "words_ratio": round(words, 4), "same_verdict": round(sum(same) / len(same), 4),
        "same_reason": round(sum(equal) / len(equal), 4), "disagreements": len(apart), "shown": apart[:SHOWN],
    }  # fmt: skip


def told_as(texts: list[str], label: str, config: DocumentsConfig) -> float:
    """Share of texts identified as `label`."""
    unscored = (Document(text, "", "", "", "", "", "", 0.0) for text in texts)
    found = [detect_language(one, config.language).label == label for one in unscored]
    return round(sum(found) / len(found), 4)


def row_of(
    label: str, sentences: list[str], texts: list[str], config: DocumentsConfig
) -> tuple[dict[str, object], list[tuple[str, str]]]:
    """Return the row of a language from its sentences, documents made of them, and the verdicts."""
    ours, rows, seconds = decided(texts, label, config)
    kept = [stage == "" for stage, _ in ours]
    splitter, whole = splitter_of(label), "\n".join(texts)
    told = {
        "language": label, "documents": len(texts),
        "documents_told": told_as(texts[::2], label, config), "sentences_told": told_as(sentences, label, config),
        "kept": round(sum(kept) / len(kept), 4), "undisturbed_kept": round(sum(kept[::2]) / len(kept[::2]), 4),
        "stop_words": round(sum(row["stop_words"] for row in rows[::2]) / len(rows[::2]), 2),
        "characters_per_word": round(len(whole) / len(splitter(whole)), 3),
        "documents_per_cpu_second": round(len(texts) / seconds, 1),
    }  # fmt: skip
    return told, ours


def main(
    sentences: Path = SENTENCES,
    thresholds: str = "",
    peer: str = "",
    documents: int = 200,
    pages: Path | None = None,
    languages: tuple[str, ...] = recipe.TEN_LANGUAGES,
) -> Iterator[dict[str, object]]:
    require_file(sentences)
    if not thresholds:
        raise SkippedError("give --thresholds, the folder of FineWeb-2's thresholds")
    wanted = (*dict.fromkeys((*recipe.TEN_LANGUAGES, *PAGES.values())),)
    config = with_thresholds(recipe.documents("", URL_FILTER_WITHOUT_LISTS, wanted, thresholds))
    if pages:
        cases = pages_of(pages, config)
    else:
        cases = {label: lines for label, lines in sentences_of(sentences).items() if label in languages}
    for label, lines in cases.items():
        if pages:
            texts = lines
            ours, _, _ = decided(texts, label, config)
            kept = sum(stage == "" for stage, _ in ours) / len(ours)
            row: dict[str, object] = {"language": label, "pages": len(texts), "kept": round(kept, 4)}
        else:
            texts = made_documents(lines, documents)
            row, ours = row_of(label, lines, texts, config)
        if peer:
            row |= compared(texts, ours, peer_decisions(texts, label, peer, thresholds), label)
        yield row


if __name__ == "__main__":
    run_benchmark(main)

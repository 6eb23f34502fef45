"""Ten languages through the scripts: each is filtered by its own thresholds, for any number of workers."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.recipes.fineweb_2 import TEN_LANGUAGES
from data_prep.by_language.splitters import splitter_of
from tests.commands import run_command
from tests.data_prep.by_language.files import write_thresholds
from tests.data_prep.by_language.test_splitters import needs_libraries
from tests.data_prep.pages import PROSE, SENTENCES, labelled_sentences

pytestmark = [
    pytest.mark.slow,
    needs_libraries,
    pytest.mark.skipif(not SENTENCES.is_file(), reason="needs the sentences in ../shared"),
]
CODES = dict(zip(("zh", "ja", "ar", "hi", "th", "ru", "de", "es", "vi", "sw"), TEN_LANGUAGES, strict=True))
DOCUMENTS, LINES = 8, 12
"""Documents of each language, and sentences of each document."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Tables of ten languages and English, thresholds with two stop words of each, and an empty list of URLs."""
    root = tmp_path_factory.mktemp("ten")
    rows = [{"id": f"en-{number}", "text": f"{PROSE} It was number {number}."} for number in range(DOCUMENTS)]
    for code, label in CODES.items():
        sentences = [text for language, text in labelled_sentences() if language == code]
        texts = [
            "\n".join(" ".join(sentences[start + line : start + line + 4]) for line in range(0, LINES, 4))
            for start in range(0, DOCUMENTS * LINES, LINES)
        ]
        rows += [{"id": f"{label}-{number}", "text": text} for number, text in enumerate([*texts, texts[0]])]
        words = Counter(word for text in texts for word in set(splitter_of(label)(text)) if word.isalpha())
        common = [word for word, _ in words.most_common(6)]
        loose = {"line_punct_thr": 0, "new_line_ratio": 1, "min_avg_word_length": 1, "max_non_alpha_words_ratio": 0.5}
        write_thresholds(root / "thresholds", label, stopwords=common, language_score=0.3, **loose)
    for part in range(3):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows[part::3]]
        (root / f"part-{part}.jsonl").write_text("".join(lines))
    (root / "urls").mkdir()
    (root / "urls/domains").write_text("bad.example\n")
    return root


def run(inputs: Path, workdir: Path, script: str, *options: str) -> str:
    done = run_command(
        f"launch.{script}", "configs/fineweb_2.py", "--workdir", workdir,
        "--pages.tables", f"{inputs}/part-*.jsonl", "--documents.url-filter.folders", str(inputs / "urls"),
        "--documents.by-language.folder", str(inputs / "thresholds"), *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(inputs, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "one"
    for script in ("fetch_pages", "extract_texts", "prepare_documents"):
        told = run(inputs, workdir, script)
    assert f"deu_Latn: {DOCUMENTS} of {DOCUMENTS + 1} texts, near_duplicate 1" in told.replace("exact", "near")
    return workdir


def table(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_all_documents_of_every_language_are_kept_except_a_copy(made):
    kept = Counter(f"{row['language']}_{row['language_script']}" for row in table(made / "documents"))
    assert kept == dict.fromkeys(TEN_LANGUAGES, DOCUMENTS)
    assert all(row["id"].rpartition("-")[0][:3] == row["language"] for row in table(made / "documents"))
    sizes = {row["id"]: row["cluster_size"] for row in table(made / "documents")}
    assert sorted(sizes.values()) == [1] * 10 * (DOCUMENTS - 1) + [2] * 10
    dropped = Counter(row["reason"] for row in table(made / "dropped"))
    assert dropped == {"other_language": DOCUMENTS, "exact_duplicate": len(TEN_LANGUAGES)}
    values = {row["id"]: row["words"] for row in table(made / "texts")}
    assert {name.partition("-")[0] for name, words in values.items() if words is None} == {"en"}


def test_other_thresholds_only_affect_their_language(inputs, made, tmp_path):
    other = Path(shutil.copytree(inputs / "thresholds", tmp_path / "thresholds"))
    (russian,) = other.glob("rus_Cyrl.*")
    russian.write_text(russian.read_text().replace("max_avg_word_length: 12", "max_avg_word_length: 4"))
    told = run(inputs, made, "refilter", "--documents.by-language.folder", str(other))
    option = "documents.gopher_quality.max_mean_word_length"
    assert f"{option}: 12 for rus_Cyrl in the run, now 4  (gopher_above_mean_word_length)" in told
    assert told.count("in the run, now") == 1
    (line,) = [line for line in told.splitlines() if "gopher_above_mean_word_length" in line and ":" not in line]
    assert line.split()[-2:] == [str(DOCUMENTS + 1), f"+{DOCUMENTS + 1}"]
    write_thresholds(other, "rus_Cyrl")  # with other stop words
    done = run_command("launch.refilter", made, "--documents.by-language.folder", other)
    assert done.returncode == 2 and "measured with other stop words" in done.stderr

"""Pages in several languages: detected with their scripts, filtered by the thresholds of their language, repaired."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep import language
from data_prep.by_language import with_thresholds
from data_prep.by_language.labels import labelled, script_of
from data_prep.config import ByLanguageConfig, LanguageConfig
from data_prep.config.language import LABELS, LANGUAGES
from data_prep.funnel.report import language_funnels, language_lines, read_counts
from data_prep.measure.run import extract_texts
from data_prep.prepare import prepare_documents
from data_prep.select.fixes import check_fixes, fix_encoding, without_symbol_lines
from data_prep.sources import InputFile
from data_prep.warc import write_pages
from lm.errors import InputError, UsageError
from lm.storage import file_sha256
from tests.data_prep.by_language.files import SPANISH, write_fasttext, write_thresholds
from tests.data_prep.by_language.test_thresholds import config
from tests.data_prep.pages import GERMAN, PROSE, document, html, page
from tests.loopback_server import serving_folder
from viewer.funnel import funnel_answer

SPANISH_TEXT = (
    "El molinero salió antes del amanecer con dos sacos de grano en su carro, y el camino que lleva a la aldea estaba "
    "blanco de escarcha. Había prometido al panadero que la harina estaría allí cuando los hornos estuvieran "
    "calientes, y era un hombre que cumplía su palabra. En el puente encontró a un niño que le habló del río."
)
RUSSIAN = "Мельник выехал до рассвета с двумя мешками зерна, и дорога в деревню была белой от инея."


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Return texts/, documents/, dropped/ and funnel.json of five pages in four languages."""
    root = tmp_path_factory.mktemp("by_language")
    write_thresholds(root / "thresholds", "deu_Latn", stopwords=["der", "und", "im", "die", "auf"])
    write_thresholds(root / "thresholds", "spa_Latn", stopwords=list(SPANISH), max_avg_word_length=3)
    texts = {"deutsch": GERMAN, "kurz": GERMAN[:150], "espanol": SPANISH_TEXT, "russian": RUSSIAN * 5, "english": PROSE}
    pages = [page(html(text), f"http://a.example/{name}") for name, text in texts.items()]
    write_pages(root / "a.warc.gz", pages)
    chosen = with_thresholds(config(folder=root / "thresholds"))
    found = InputFile(root / "a.warc.gz", "a.warc.gz", "warc", (root / "a.warc.gz").stat().st_size)
    extract_texts([found], chosen, root)
    prepare_documents(root / "texts", chosen, root)
    return root


def by_name(folder: Path) -> dict[str, dict]:
    return {
        row["url"].rpartition("/")[2]: row
        for path in folder.glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    }


def test_documents_have_their_language_and_script(made):
    ((name, row),) = by_name(made / "documents").items()
    assert (name, row["language"], row["language_script"]) == ("deutsch", "deu", "Latn")
    names = pq.read_schema(made / "documents" / "a.parquet").names
    assert names.index("language_script") == names.index("language") + 1


def test_thresholds_of_the_language_drop_documents_and_other_languages_are_not_measured(made):
    dropped = {
        name: (row["language"], row["language_script"], row["reason"])
        for name, row in by_name(made / "dropped").items()
    }
    assert dropped == {
        "kurz": ("deu", "Latn", "fineweb_too_few_terminal_punctuation_lines"),
        "espanol": ("spa", "Latn", "gopher_above_mean_word_length"),
        "russian": ("rus", "Cyrl", "other_language"),
        "english": ("eng", "Latn", "other_language"),
    }


def test_the_funnel_counts_each_language(made):
    chosen = with_thresholds(config(folder=made / "thresholds"))
    counts = read_counts(made / "funnel.json").counts["by_language"]
    assert {
        one.language: (one.documents, one.kept, [tally.name for tally in one.dropped])
        for one in language_funnels(counts, chosen)
    } == {
        "deu_Latn": (2, 1, ["fineweb/fineweb_too_few_terminal_punctuation_lines"]),
        "spa_Latn": (1, 0, ["gopher_quality/gopher_above_mean_word_length"]),
    }
    written = json.loads((made / "funnel.json").read_text())
    limits = {one["reason"]: one.get("by_language") for one in written["thresholds"]}
    assert limits["gopher_above_mean_word_length"] == {"deu_Latn": 12, "spa_Latn": 3}
    assert limits["gopher_short_document"] is None
    assert language_lines(made / "funnel.json", chosen) == [
        "  deu_Latn: 1 of 2 texts, fineweb_too_few_terminal_punctuation_lines 1",
        "  spa_Latn: 0 of 1 texts, gopher_above_mean_word_length 1",
    ]
    answer = funnel_answer(read_counts(made / "funnel.json"), chosen)
    (line,) = [one for one in answer["thresholds"] if one["reason"] == "gopher_above_mean_word_length"]
    assert line["by_language"] == {"deu_Latn": 12, "spa_Latn": 3}
    (german, _) = answer["by_language"]
    assert (german["language"], german["documents"], german["kept"]) == ("deu_Latn", 2, 1)
    assert german["dropped"] == [("fineweb/fineweb_too_few_terminal_punctuation_lines", 1)]


@pytest.mark.parametrize(
    ("code", "text", "label"),
    [
        ("de", GERMAN, "deu_Latn"), ("sr", "Млин је на реци", "srp_Cyrl"), ("sr", "Mlin je na reci", "srp_Latn"),
        ("ja", "漢字", "jpn_Jpan"), ("ja", "ひらがな", "jpn_Jpan"), ("zh", "磨坊主", "cmn_Hani"),
        ("ko", "漢字", "kor_Hang"),
        ("uz", "дарё", "uzn_Cyrl"), ("ar", "12", "arb_Arab"), ("deu", "x", "deu_Latn"), ("tha_Thai", "x", "tha_Thai"),
        ("xyz", "12", "xyz_Zyyy"),
    ],
)  # fmt: skip
def test_a_language_gets_its_script(code, text, label):
    assert "_".join(labelled(code, text)) == label


def test_the_script_is_that_of_the_majority_of_letters():
    assert script_of("Müller 12, река") == "Latn"
    assert script_of("река, a") == "Cyrl"
    assert script_of("12 — !") == "Zyyy"
    assert len(LABELS) == len(LANGUAGES) == 176
    assert len(set(LABELS.values())) == 176


def test_the_language_of_a_table_is_reported_like_any_other():
    found = language.with_script(document("Млин", language="sr"))
    assert (found.language, found.language_script) == ("srp", "Cyrl")


GLOTLID_WORDS = {
    "deu_Latn": ("der", "die", "und", "mühle"), "srp_Latn": ("je", "bio", "mlin"), "srp_Cyrl": ("је", "био", "млин"),
}  # fmt: skip


def glotlid(model: Path | str, sha256: str = "") -> LanguageConfig:
    return LanguageConfig(
        languages=("srp_Cyrl",), min_score=0.5, letters_only=False, detector="glotlid", model=str(model),
        model_sha256=sha256 or file_sha256(Path(model)),
    )  # fmt: skip


def test_glotlid_detects_language_and_script_with_a_model_downloaded_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    model = write_fasttext(tmp_path / "model.bin", GLOTLID_WORDS)
    with serving_folder(tmp_path) as address:
        chosen = glotlid(f"{address}/model.bin", file_sha256(model))
        identity = language.model_identity(chosen)
    for label, words in GLOTLID_WORDS.items():  # without the server
        found = language.detect_language(document("\n".join(words), language=""), chosen)
        assert found.label == label
        assert 0.9 < found.language_score <= 1
    assert language.detect_language(document("der je", language=""), chosen).language_score < 0.6
    assert identity == language.model_identity(glotlid(model)) == {"language model": file_sha256(model)}
    assert language.model_identity(config().language) == {}


def test_missing_damaged_unnamed_or_mismatched_models_are_rejected(tmp_path):
    (tmp_path / "damaged.bin").write_bytes(b"not a model")
    other = write_fasttext(tmp_path / "other.bin", {"de": ("der",), "en": ("the",)})
    for chosen, told in (
        (glotlid("x.bin", "0" * 64), r"no file x.bin.*hf://cis-lmu/glotlid"),
        (glotlid(tmp_path / "damaged.bin"), r"damaged\.bin \(documents\.language\.model\) cannot be used"),
        (dataclasses.replace(glotlid(other), model_sha256=""), r"documents\.language\.model_sha256 is empty"),
        (glotlid(other), "__label__deu_Latn"),
    ):
        with pytest.raises(InputError, match=told):
            language.detect_language(document(PROSE), chosen)
    with pytest.raises(UsageError, match="model is empty"):
        dataclasses.replace(glotlid(other), model="")


def test_lines_of_symbols_are_removed():
    asked = ByLanguageConfig(symbol_lines=("|",))
    assert without_symbol_lines("a\n| |\n|||\nb | c\n|\n\nd", asked) == "a\n\n\nb | c\n\n\n\nd"
    assert without_symbol_lines("a\n|", ByLanguageConfig()) == "a\n|"
    assert without_symbol_lines("a\n|", None) == "a\n|"
    with pytest.raises(UsageError, match="'--'"):
        ByLanguageConfig(symbol_lines=("--",))


@pytest.mark.skipif(importlib.util.find_spec("ftfy") is None, reason="not installed: ftfy (make languages)")
def test_only_broken_encodings_are_repaired():
    asked = ByLanguageConfig(fix_encoding=True)
    assert fix_encoding("Die schÃ¶ne MÃ¼hle", asked) == "Die schöne Mühle"
    kept = "“Mühle” ﬁ ＡＢ　「粉屋」\r\nx"
    assert fix_encoding(kept, asked) == kept
    assert fix_encoding("schÃ¶n", ByLanguageConfig()) == "schÃ¶n"


def test_a_missing_ftfy_is_reported_before_processing(monkeypatch):
    if importlib.util.find_spec("ftfy") is None:
        with pytest.raises(InputError, match=r"make languages"):
            check_fixes(ByLanguageConfig(fix_encoding=True))
    check_fixes(ByLanguageConfig())
    check_fixes(None)

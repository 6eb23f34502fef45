"""Thresholds by language: parsed, rejected with a message, and applied only to texts of their language."""

import dataclasses
import io
import math
import random
import tarfile
import types
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pyarrow as pa
import pytest

from configs.recipes import fineweb_2 as recipe
from configs.recipes.gristmill import URL_FILTER_WITHOUT_LISTS
from data_prep.by_language import thresholds as module
from data_prep.by_language import thresholds_identity, with_thresholds
from data_prep.config import ByLanguageConfig, DocumentsConfig
from data_prep.config.by_language import LIMITED
from data_prep.measure.row import measure, text_schema
from data_prep.verdict import thresholds_of, verdicts
from lm.errors import InputError, UsageError
from tests.data_prep.by_language.files import SPANISH, thresholds, write_thresholds
from tests.data_prep.pages import demo_config
from tests.loopback_server import listening, serving_folder, start

LANGUAGES = ("deu_Latn", "spa_Latn")


def config(*found, folder: Path | None = None, languages: tuple[str, ...] = LANGUAGES) -> DocumentsConfig:
    """The recipe with these thresholds, or with those of a folder."""
    made = recipe.documents("x", URL_FILTER_WITHOUT_LISTS, languages, str(folder or "nowhere"))
    by_language = dataclasses.replace(made.by_language or ByLanguageConfig(), thresholds=found, fix_encoding=False)
    return dataclasses.replace(made, by_language=by_language)


def rows(count: int, seed: int = 0) -> pa.Table:
    """Rows of three languages with values on both sides of all thresholds."""
    draw, schema = random.Random(seed), text_schema(config(thresholds("deu_Latn"), thresholds("spa_Latn")))
    made = []
    for number in range(count):
        language = ("deu", "spa", "fra")[number % 3]
        row: dict[str, float | str] = dict.fromkeys(schema.names[schema.get_field_index("text_bytes") + 1 :], 0.0)
        row.update(words=500.0, stop_words=5.0, mean_word_length=5.0, words_with_letter=0.95)
        row["terminal_punctuation_lines"], row["language"], row["language_script"] = 0.9, language, "Latn"
        row["language_score"] = draw.choice([0.9, 0.9, 0.5])
        changed = draw.choice([*row.keys() - {"language", "language_script"}])
        made.append(row | {changed: draw.choice([0.0, 0.05, 0.16, 0.25, 0.5, 0.75, 1.0, 5.0, 11.0, 14.0])})
    return pa.Table.from_pylist(made, schema)


CHANGES = (
    {"dup_line_frac": 0.1}, {"top_n_grams": [[2, 0.02], [3, 0.02], [4, 0.02]]}, {"line_punct_thr": 0.95},
    {"dup_n_grams": [[size, 0.01] for size in range(5, 11)]}, {"language_score": 0.95}, {"new_line_ratio": 0.01},
    {"min_avg_word_length": 6}, {"max_avg_word_length": 4}, {"max_non_alpha_words_ratio": 0.99},
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_every_row_gets_the_verdict_of_a_config_for_only_its_language(change):
    """That config is the recipe with the limits written into its filters."""
    table = rows(1500)
    both = {"deu": thresholds("deu_Latn", **change), "spa": thresholds("spa_Latn", dup_line_frac=0.05)}
    found = verdicts(table, config(*both.values()))
    assert found != verdicts(table, config(thresholds("deu_Latn"), both["spa"]))
    languages = table["language"].to_pylist()
    of_french = {verdict for verdict, language in zip(found, languages, strict=True) if language == "fra"}
    assert of_french == {("language", "low_language_score"), ("language", "other_language")}
    for language, own in both.items():
        changes: dict[str, dict] = {}
        for (name, field), limit in own.limits().items():
            changes.setdefault(name, {})[field] = limit if len(limit) > 1 else limit[0]
        plain = config(*both.values())
        parts = {name: dataclasses.replace(getattr(plain, name), **fields) for name, fields in changes.items()}
        alone = dataclasses.replace(plain, **parts, by_language=None)
        mine = [row for row, name in enumerate(languages) if name == language]
        assert verdicts(table.take(mine), alone) == [found[row] for row in mine]


def test_a_score_at_the_threshold_passes():
    """FineWeb-2 keeps scores at the threshold, FineWeb only scores above it."""
    table = rows(3)
    place = table.schema.get_field_index("language_score")
    for score, passes in ((0.5, True), (math.nextafter(0.5, 0), False)):
        scored = table.set_column(place, "language_score", pa.array([score] * 3))
        found = verdicts(scored, config(thresholds("deu_Latn"), thresholds("spa_Latn")))
        assert (found[:2] != [("language", "low_language_score")] * 2) == passes


def test_stop_words_depend_on_the_language_of_the_text():
    german = "Der Müller fuhr im Winter und im Sommer durch die Stadt, und der Weg war weit."
    made = config(thresholds("deu_Latn"), thresholds("spa_Latn", stopwords=list(SPANISH)))
    assert measure(german, made, "deu_Latn")["stop_words"] == len({"und", "die", "im", "der"})
    assert measure(german, made, "spa_Latn")["stop_words"] == 0
    assert measure("the mill of the miller that is to be", made, "eng_Latn")["stop_words"] == 5  # those of the recipe


def test_the_funnel_reports_the_limits_that_were_applied():
    made = config(thresholds("deu_Latn", dup_line_frac=0.25), thresholds("spa_Latn", dup_line_frac=0))
    told = {one.reason: one for one in thresholds_of(made)}
    assert told["gopher_duplicate_lines"].by_language == {"deu_Latn": 0.25, "spa_Latn": 1.0}
    assert told["gopher_short_document"].by_language == {}
    by_language = {
        (one.stage, one.option.rsplit(".")[-1].partition("[")[0]) for one in told.values() if one.by_language
    }
    assert by_language == set(LIMITED)


def test_a_config_without_thresholds_has_no_columns_and_no_thresholds_by_language():
    plain = demo_config()
    assert "language_script" not in text_schema(plain).names
    assert not {"by_language", "stop words"} & plain.of_texts().keys()
    assert thresholds_identity(plain) == {}
    assert all(one.by_language == {} for one in thresholds_of(plain))


def test_only_the_wanted_files_of_a_folder_are_read(tmp_path):
    write_thresholds(tmp_path, "deu_Latn", line_punct_thr=-1)
    write_thresholds(tmp_path, "spa_Latn", stopwords=list(SPANISH))
    (tmp_path / "tha_Thai.yml").write_text("not asked for")
    made = with_thresholds(config(folder=tmp_path))
    assert made.thresholds_by_language == {
        "deu_Latn": thresholds("deu_Latn", line_punct_thr=-1),
        "spa_Latn": thresholds("spa_Latn", stopwords=list(SPANISH)),
    }


def test_a_result_is_identified_by_the_contents_of_the_files_and_not_by_their_paths(tmp_path):
    for folder in ("one", "other"):
        for language in LANGUAGES:
            write_thresholds(tmp_path / folder, language)
    one, other = (config(folder=tmp_path / name) for name in ("one", "other"))
    assert thresholds_identity(one) == thresholds_identity(other)
    texts = thresholds_identity(one, "stopwords")
    write_thresholds(tmp_path / "other", "spa_Latn", new_line_ratio=0.31)
    assert thresholds_identity(one) != thresholds_identity(other)
    assert thresholds_identity(other, "stopwords") == texts  # measured values are kept
    write_thresholds(tmp_path / "other", "spa_Latn", stopwords=list(SPANISH))
    assert thresholds_identity(other, "stopwords") != texts


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stopwords": None}, "stopwords"), ({"dup_line_frac": "much"}, "dup_line_frac"),
        ({"top_n_grams": [[2, 0.1], [3, 0.1]]}, r"top_n_grams has the sizes \[2, 3\]"), ({"extra": 1}, "extra is"),
        ({"new_line_ratio": float("nan")}, "new_line_ratio is nan"), ({"language_score": 1.5}, "language_score is 1.5"),
        ({"stopwords": [False]}, "stopwords"), ({"min_avg_word_length": 13}, "min_avg_word_length = 13"),
    ],
)  # fmt: skip
def test_an_invalid_file_is_rejected_by_name(tmp_path, changes, told):
    write_thresholds(tmp_path, "deu_Latn")
    write_thresholds(tmp_path, "spa_Latn", **changes)
    with pytest.raises(InputError, match=told) as refused:
        with_thresholds(config(folder=tmp_path))
    assert "spa_Latn.yml" in str(refused.value)


def test_a_language_without_thresholds_is_rejected_with_similar_names(tmp_path):
    write_thresholds(tmp_path, "deu_Latn")
    write_thresholds(tmp_path, "azj_Cyrl")
    with pytest.raises(UsageError, match=r"'azj_Latn'.*Did you mean azj_Cyrl"):
        with_thresholds(config(folder=tmp_path, languages=("deu_Latn", "azj_Latn")))
    with pytest.raises(InputError, match="has no file such as deu_Latn"):
        with_thresholds(config(folder=tmp_path / "empty"))


@pytest.mark.parametrize(
    ("languages", "told"),
    [((), "is empty"), (("de",), "Write it as deu_Latn"), (("deu_Latn", "es"), "Write it as 'spa_Latn'"),
     (("deu_Latn", "nev_Latn"), "Did you mean new_Latn.*glotlid")],
)  # fmt: skip
def test_languages_have_scripts_in_their_names(languages, told):
    with pytest.raises(UsageError, match=told):
        config(languages=languages)


def test_a_folder_may_be_a_url(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    path = write_thresholds(tmp_path, "deu_Latn")
    with serving_folder(tmp_path) as address:
        by_language = ByLanguageConfig(folder=address)
        made = dataclasses.replace(config(languages=("deu_Latn",)), by_language=by_language)
        assert with_thresholds(made).thresholds_by_language == {"deu_Latn": thresholds("deu_Latn")}
        path.unlink()
        with pytest.raises(InputError, match="has no file such as deu_Latn"):
            with_thresholds(made)


def archive_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve an archive of the files of LANGUAGES, which are the pinned ones."""
    files = {f"{language}.yml": write_thresholds(tmp_path / "own", language).read_bytes() for language in LANGUAGES}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("GRISTMILL_STORAGE_RETRIES", "0")
    monkeypatch.setattr(module, "SHA256", module.digest(dict(sorted(files.items()))))
    module.published_files.cache_clear()
    inside = {f"fineweb-2-d0defb24/configs/{name}": data for name, data in files.items()}
    archive = archive_of({"fineweb-2-d0defb24/README.md": b"x", **inside})
    served = types.SimpleNamespace(requests=0, files=files, archive=archive)

    def answer(request: BaseHTTPRequestHandler) -> None:
        """Send the archive in chunks without its length, as GitHub does."""
        served.requests += 1
        start(request, 200, {"Transfer-Encoding": "chunked"})
        for piece in (served.archive[:1000], served.archive[1000:], b""):
            request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    with listening(answer) as address:
        monkeypatch.setattr(module, "ARCHIVE", f"{address}/tar.gz")
        yield served
    module.published_files.cache_clear()


def published() -> DocumentsConfig:
    module.published_files.cache_clear()
    return with_thresholds(dataclasses.replace(config(), by_language=ByLanguageConfig()))


def test_the_archive_is_downloaded_once_and_verified(server, tmp_path):
    first = published()
    assert first.thresholds_by_language == {language: thresholds(language) for language in LANGUAGES}
    assert published() == first and server.requests == 1
    kept = next((tmp_path / "cache").rglob("*.tar.gz"))
    cut = kept.read_bytes()[: kept.stat().st_size // 2]
    for damaged in (b"damaged", cut, archive_of({"fineweb-2/configs/deu_Latn.yml": b"other"})):
        kept.write_bytes(damaged)
        before = server.requests
        assert published() == first and server.requests == before + 1


@pytest.mark.parametrize("change", ["other", "more", "fewer", "large", "cut"])
def test_an_archive_with_other_files_is_rejected(server, tmp_path, change):
    files = {f"x/configs/{name}": data for name, data in server.files.items()}
    if change == "other":
        files["x/configs/deu_Latn.yml"] += b"\n"
    if change == "more":
        files["x/configs/eng_Latn.yml"] = b"x"
    if change == "fewer":
        del files["x/configs/deu_Latn.yml"]
    if change == "large":
        files["x/configs/deu_Latn.yml"] += b" " * module.MAX_BYTES
    server.archive = archive_of(files)[: 200 if change == "cut" else None]
    with pytest.raises(InputError, match=r"expected files|cannot be downloaded.*--documents.by-language.folder"):
        published()
    assert not list((tmp_path / "cache").rglob("*.tar.gz"))


def test_an_unreachable_server_is_reported(server, monkeypatch):
    monkeypatch.setattr(module, "ARCHIVE", "http://127.0.0.1:9/tar.gz")
    with pytest.raises(InputError, match=r"cannot be downloaded.*--documents.by-language.folder"):
        published()

"""A user's function as a filter: defined in one file, and saved with its source in the config."""

import dataclasses
import importlib.util
import json
import pickle
from collections import Counter

import pyarrow as pa
import pytest

from configs.experiment.run_folder import RunFolder, experiment_json
from configs.recipes import gristmill as recipe
from data_prep.config import DocumentsConfig
from data_prep.measure.row import measure, rows_of_input, text_schema
from data_prep.quality.function import filter_class, keep_if
from data_prep.sources import InputFile
from data_prep.text.passage import Passage
from data_prep.verdict import verdicts
from lm.errors import UsageError
from tests.corpus import tiny_experiment
from tests.data_prep.measured import prose

SOURCE = """
import re

VOWELS = re.compile("[aeiou]")

def vowels(text: str) -> int:
    return len(VOWELS.findall(text))

def has_vowel(text):
    return vowels(text) > 0

def nothing(text):
    return None
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    """The module of a file outside of sys.path."""
    path = tmp_path_factory.mktemp("functions") / "my_functions.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("somewhere_else", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config_with(*filters):
    return recipe.documents("demo", recipe.URL_FILTER_WITHOUT_LISTS, *filters)


def judged(values: dict, config: DocumentsConfig):
    row = {"language": "en", "language_score": 1.0} | values
    (verdict,) = verdicts(pa.Table.from_pylist([row], text_schema(config)), config)
    return verdict


@pytest.mark.parametrize(
    ("at_least", "at_most", "text", "reason"),
    [(1000, None, prose(60), "vowels_below"), (None, 1000, prose(60) + " a" * 1000, "vowels_above")],
)
def test_texts_beyond_the_limit_are_dropped_by_name(functions, at_least, at_most, text, reason):
    config = config_with(keep_if(functions.vowels, at_least=at_least, at_most=at_most))
    values = measure(text, config)
    assert values["vowels_value"] == sum(letter in "aeiou" for letter in text)
    only = {"vowels_value": values["vowels_value"]}
    assert judged(only, config) == ("vowels", reason)
    assert judged({"vowels_value": 1000.0}, config) is None


def test_false_drops_and_true_keeps_a_text(functions):
    one = keep_if(functions.has_vowel, name="vowel_there")
    assert (one.measure(Passage("xyz")), one.measure(Passage("abc"))) == ([0.0], [1.0])
    assert [rule.reason for rule in one.rules] == ["vowel_there_below"] and getattr(one, "limit", None) == 1


def test_a_function_is_saved_with_its_source_in_pickles_and_run_folders(functions, tmp_path):
    config = config_with(keep_if(functions.vowels, at_least=3))
    found = pickle.loads(pickle.dumps(config))
    assert found == config and measure(prose(60), found) == measure(prose(60), config)
    experiment = dataclasses.replace(tiny_experiment(), documents=config)
    saved = json.loads(experiment_json(experiment))
    assert RunFolder(tmp_path).experiment_of(saved, "trust")[0] == experiment
    other = filter_class("vowels", "below")(3.0, "vowels", SOURCE + "# changed\n")
    assert config_with(other).of_texts() != config.of_texts()


def test_functions_that_cannot_be_saved_or_return_no_number_are_rejected(functions):
    with pytest.raises(UsageError, match="not a top-level function"):
        keep_if(lambda text: True)
    with pytest.raises(UsageError, match="both given"):
        keep_if(functions.vowels, at_least=1, at_most=2)
    with pytest.raises(UsageError, match=r"nothing .*returned None"):
        keep_if(functions.nothing).measure(Passage("abc"))
    with pytest.raises(UsageError, match="cannot be run by itself"):
        filter_class("f", "below")(1.0, "f", "import not_there_at_all").measure(Passage("a"))


def test_a_sample_depends_only_on_the_page_and_grows_with_the_rate(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"id": f"<{n}>", "text": "word"}) + "\n" for n in range(2000)))
    file = InputFile(path, "t.jsonl", "table", path.stat().st_size)
    config = config_with()

    def ids(rate: float, seed: int = 0) -> tuple[set[str], int]:
        skipped: Counter[str] = Counter()
        sampled = dataclasses.replace(config, sample_rate=rate, sample_seed=seed)
        return {row["id"] for row in rows_of_input(file, sampled, skipped)}, skipped["not_sampled"]

    some, left_out = ids(0.1)
    more, _ = ids(0.3)
    assert some < more and 120 < len(some) < 280 and len(some) + left_out == 2000
    assert ids(0.1, seed=1)[0] != some
    assert ids(1.0) == ({f"<{n}>" for n in range(2000)}, 0)
    assert config.of_texts() == dataclasses.replace(config, sample_rate=1.0).of_texts()
    with pytest.raises(UsageError, match=r"documents\.sample_rate is 0"):
        dataclasses.replace(config, sample_rate=0.0)

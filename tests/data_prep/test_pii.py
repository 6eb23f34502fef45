import json
import time
from pathlib import Path

import pytest

from data_prep.config import PersonalDataConfig
from data_prep.pii import remove_personal_data, replace_emails
from tests.data_prep.pages import document

LABELLED = Path(__file__).parents[2] / "../shared/data/pii/synth_dataset_v2.json"
CONFIG = PersonalDataConfig(replace_emails=True, email_placeholder="\\1 someone@example.com")  # taken literally


@pytest.mark.parametrize(
    "address",
    [
        "a@b.de",
        "First.Last+tag@sub.sub2.example.co.uk",
        "under_score%x-1@ex-ample.museum",
        "7@7.com",
        f"{'l' * 64}@{'d' * 63}.org",
    ],
)
@pytest.mark.parametrize("around", ["{}", "<{}>", "mailto:{}.", "'{}',", "({})", "…{}…", "\n{}\n", "über {} é"])
def test_addresses_are_replaced_whole(address, around):
    assert replace_emails(around.format(address), "X") == (around.format("X"), 1)


@pytest.mark.parametrize(
    "text", ["@name", "a@b", "a @ b.de", "user@localhost", "a@b.1", "@a.b@", "x@-y.de", "no one at all"]
)
def test_what_is_no_address_stays(text):
    assert replace_emails(text, "X") == (text, 0)


def test_counts_and_keeps_the_rest():
    before = document("Write to a@b.de, c@d.fr or e@f.it.", url="http://a@b.de/")
    after, count = remove_personal_data(before, CONFIG)
    placeholder = CONFIG.email_placeholder
    assert count == 3
    assert after == document(f"Write to {placeholder}, {placeholder} or {placeholder}.", url="http://a@b.de/")


def test_can_be_turned_off():
    before = document("a@b.de")
    assert remove_personal_data(before, PersonalDataConfig(False, "X")) == (before, 0)


@pytest.mark.parametrize(
    "unit",
    ["a!", "a@a.", "a@", "@", "a.", "a-", "a", "a@a.aa.", "a@a-", "a_a@a.b-", "1.a@", "a@a.a.a.a.a.a.a.a.a.a.a.1 "],
)
def test_time_is_linear_in_the_text(unit):
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        start = time.process_time()
        replace_emails(text, "X")
        return time.process_time() - start

    small, large = (min(seconds(size) for _ in range(3)) for size in (50_000, 800_000))
    assert large < 5 * 16 * small + 0.01  # if it were quadratic, 256 times as long


@pytest.mark.skipif(not LABELLED.is_file(), reason=f"{LABELLED} is not there")
def test_finds_the_labelled_addresses():
    texts = json.loads(LABELLED.read_text(encoding="utf-8"))
    labelled = [
        (text["full_text"], span["entity_value"])
        for text in texts
        for span in text["spans"]
        if span["entity_type"] == "EMAIL_ADDRESS"
    ]
    assert len(labelled) > 20
    assert [value for text, value in labelled if value in replace_emails(text, "X")[0]] == []
    others = [t["full_text"] for t in texts if all(s["entity_type"] != "EMAIL_ADDRESS" for s in t["spans"])]
    assert sum(replace_emails(text, "X")[1] for text in others) == 0

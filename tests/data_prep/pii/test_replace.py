"""Replacement is idempotent, and a text without personal data is returned unchanged."""

import dataclasses
import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from configs.recipes.gristmill import PERSONAL_DATA as CONFIG
from data_prep.pii import FINDERS, replace_personal_data
from lm.errors import UsageError
from tests.bench.pii import LABELLED, score
from tests.bench.pii_texts import labelled_texts

ONE_OF_EACH = (
    "Ann, 12 Main Street, Springfield, IL 62704, ann@mail.org, (212) 736-5000, from 81.2.69.160, "
    "pays by 4012 8888 8888 1881 or GB33BUKB20201555555555."
)
PIECES = [
    "a@b.de", "@", "ann.lee@mail.org", "почта@пример.рф", "81.2.69.160", "2a02:6b8::2:242", "1.2.3.4", "::", ":",
    "+41 44 668 18 00", "(212) 736-5000", "020 7946 0018", "0041", "+", "(", ")", "phone ", "tel", " fax",
    "4012888888881881", "4222222222222", "4012 8888 8888 1881", "378282246310005", "GB33BUKB20201555555555",
    "GB33 BUKB 2020 1555 5555 55", "GB33", "12 Main Street", ", Springfield", ", IL 62704", "Apt. 4", "P.O. Box 12",
    "Hauptstraße 12", "10115 Berlin", "1 A", "12", "7", "1999", "-", ".", ",", "/", " ", " ", "\n", "x",
    "address: ", "lives at ", "Unter den Linden 77", ", 10117 Berlin", "Flat 3, ", "No. ", "Puruntie 82",
    "Via Roma", "St",
    "8.8.8.8", "978-744-1234", "DNS ", "PO Box 5", "my number ", "ISBN ", " / ",
    "A", "ß", "联系", "\u200b", "St", "card ", "version ",
    "\ufdd0", "\ufdef", "#", "=", CONFIG.email_placeholder, CONFIG.phone_placeholder, CONFIG.address_placeholder,
]  # fmt: skip


def test_each_kind_is_replaced_by_its_placeholder_and_counted():
    text, counts = replace_personal_data(ONE_OF_EACH, CONFIG)
    assert text == (
        f"Ann, {CONFIG.address_placeholder}, {CONFIG.email_placeholder}, {CONFIG.phone_placeholder}, "
        f"from {CONFIG.ip_placeholder}, pays by {CONFIG.payment_card_placeholder} or {CONFIG.iban_placeholder}."
    )
    assert list(counts.items()) == [(kind, 1) for kind in FINDERS]


@pytest.mark.parametrize("kind", FINDERS)
def test_only_the_selected_kinds_are_replaced(kind):
    text, counts = replace_personal_data(ONE_OF_EACH, dataclasses.replace(CONFIG, kinds=(kind,)))
    assert counts == {kind: 1}
    before, after = text.split(CONFIG.placeholder(kind))
    assert ONE_OF_EACH.startswith(before) and ONE_OF_EACH.endswith(after)
    assert replace_personal_data(ONE_OF_EACH, dataclasses.replace(CONFIG, kinds=())) == (ONE_OF_EACH, {})
    literal = dataclasses.replace(CONFIG, kinds=(kind,), **{f"{kind}_placeholder": r"\1 \g<0>"})
    assert replace_personal_data(ONE_OF_EACH, literal)[0] == rf"{before}\1 \g<0>{after}"


@pytest.mark.parametrize(
    "text", ["", "No one at all.", "In 1999, 12 of 300.", "\ufdd0 12 \ufdef", CONFIG.email_placeholder]
)
def test_a_text_without_personal_data_is_returned_unchanged(text):
    replaced, counts = replace_personal_data(text, CONFIG)
    assert replaced is text
    assert sum(counts.values()) == 0


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@example("\ufdd1a@b.de\ufdef")
@example("1.2.3.4 Hauptstraße 12")
@example("4012 8888 8888 1881 128.8.8.8")
def test_only_matches_are_changed_and_replacement_is_idempotent(text):
    replaced, counts = replace_personal_data(text, CONFIG)
    twice, more = replace_personal_data(replaced, CONFIG)
    assert (twice, sum(more.values())) == (replaced, 0)
    marks = [CONFIG.placeholder(kind) for kind in FINDERS]
    kept = re.split("|".join(map(re.escape, marks)), replaced)
    assert re.fullmatch(".*".join(map(re.escape, kept)), text, re.DOTALL)
    assert sum(counts.values()) + sum(text.count(mark) for mark in marks) == len(kept) - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": ("email", "email")}, "twice"),
        ({"kinds": ("phone",), "phone_placeholder": " "}, "phone_placeholder is ' '"),
        ({"phone_regions": ("us",)}, "codes"),
        ({"phone_regions": ("QQ",)}, "'QQ'"),
        ({"kinds": ("e-mail",)}, "kinds must be"),
        ({"emails": "strict"}, "emails must be"),
    ],
)
def test_invalid_configs_are_rejected(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_recall_and_precision_on_synthetic_texts():
    """On the half whose names and sentences were not used for tuning."""
    scores = score(labelled_texts("report", 1000), CONFIG)
    assert scores["phone"]["recall"] >= 0.90, scores
    assert scores["address"]["units_recall"] >= 0.90, scores
    assert all(row["precision"] >= 0.98 for row in scores.values() if row["found"]), scores


@pytest.mark.skipif(not LABELLED.is_file(), reason=f"{LABELLED} is not there")
def test_recall_and_precision_on_labelled_texts():
    scores = score(json.loads(LABELLED.read_text()), CONFIG)
    recall = {kind: row.get("units_recall", row["recall"]) for kind, row in scores.items()}
    bars = {"email": 0.99, "ip": 0.99, "payment_card": 0.95, "iban": 0.95, "phone": 0.90, "address": 0.60}
    for kind, wanted in bars.items():
        assert recall[kind] >= wanted, scores
        assert scores[kind]["precision"] >= 0.99, scores

import random

from hypothesis import given
from hypothesis import strategies as st

from data_prep.dedup.exact import later_copies, text_key


def test_key_ignores_white_space_alone():
    assert text_key("a b\n\nc ") == text_key(" a\tb c") == text_key("a\u00a0b\u2003c")
    assert len({text_key(text) for text in ("a b c", "ab c", "A b c", "a b c.", "")}) == 5


def test_key_is_sha256_of_utf8():
    assert text_key("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)), min_size=1, unique=True), st.randoms())
def test_the_first_position_stays_whatever_the_order_of_arrival(positions, rng: random.Random):
    arrived = list(positions)
    rng.shuffle(arrived)
    copies = later_copies(iter(arrived))
    assert copies == later_copies(positions)
    assert sorted([*copies, min(positions)]) == sorted(positions)

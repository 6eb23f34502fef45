from data_prep.dedup.keys import text_key


def test_key_ignores_white_space_alone():
    assert text_key("a b\n\nc ", "d") == text_key(" a\tb c", "d") == text_key("a\u00a0b\u2003c", "d")
    assert len({text_key(text, "d") for text in ("a b c", "ab c", "A b c", "a b c.", "", "\ud800")}) == 6


def test_documents_of_different_dumps_never_meet():
    assert text_key("a b", "CC-MAIN-2024-10") != text_key("a b", "CC-MAIN-2024-18")


def test_keys_are_those_of_every_other_machine():
    assert text_key("abc", "d").hex() == "8aba90e1bebb392eaa5e5026b0e719b9"

"""The streamed pieces are the text up to the first stop string."""

import hypothesis
import hypothesis.strategies as st

from lm.inference.text_stream import TextStream
from lm.tokenizer import train_bpe
from tests.corpus import texts, tiny_experiment
from tests.growth import superlinear

TOKENIZER = train_bpe(texts(20), tiny_experiment().tokenizer)
BYTES = {token: id for id, token in enumerate(TOKENIZER.tokens)}


def pieces(tokens, stop=()):
    stream, found = TextStream(TOKENIZER, stop), []
    for token in tokens:
        found.append(stream.push(token))
        if stream.stopped:
            return found, True
    return [*found, stream.finish()], stream.stopped


def until(text, stop):
    """By the definition: up to the first complete stop string; the longest if several end together."""
    for end in range(len(text) + 1):
        if ends := [one for one in stop if text[:end].endswith(one)]:
            return text[: end - max(map(len, ends))], True
    return text, False


@hypothesis.given(st.text("abé😀 \n", max_size=40), st.lists(st.text("abé😀 \n", min_size=1, max_size=5), max_size=3))
def test_the_pieces_are_the_text_before_the_first_stop_string(text, stop):
    for tokens in (TOKENIZER.encode(text), [BYTES[bytes([byte])] for byte in text.encode()]):
        found, stopped = pieces(tokens, tuple(stop))
        assert ("".join(found), stopped) == until(text, stop)


@hypothesis.given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=30))
def test_pieces_of_any_tokens_join_to_the_decoded_text(tokens):
    found, _ = pieces(tokens)
    assert "".join(found) == TOKENIZER.decode(tokens)


def test_incomplete_characters_and_possible_stop_strings_are_held_back():
    found, _ = pieces([BYTES[bytes([byte])] for byte in "a😀b".encode()])
    assert found == ["a", "", "", "", "😀", "b", ""]
    found, stopped = pieces([BYTES[bytes([byte])] for byte in b"xSTOxSTOP!"], ("STOP",))
    assert (found, stopped) == (["x", "", "", "", "STOx", "", "", "", ""], True)
    assert pieces([BYTES[b"S"], BYTES[b"T"]], ("STOP",)) == (["", "", "ST"], False)


def test_long_stop_strings_take_linear_steps():
    made = lambda size: ([BYTES[b"a"]] * size, ("a" * (size // 2) + "b",))
    assert not superlinear(lambda given: pieces(*given), made, 500)

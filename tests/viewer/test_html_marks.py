"""The HTML next to its text: nothing added, kept text marked, long parts shortened and counted."""

import pytest

from viewer.window.followed import CUT_OFF, LONGEST, HtmlPiece, pieces_of, shown_pieces

PAGE = (
    "<html><head><style>p { }</style><script>let a = '<p>The miller set out</p>'</script></head>"
    "<body><nav><a href='/'>Home</a> <a href='/the'>The</a></nav><p>The miller set out before &amp; after\n dawn, "
    "<b>as</b> ever.</p><!-- <p>as</p> --><ul><li>Home</li></ul><footer>All rights reserved</footer></body></html>"
)
TEXT = "The miller set out before & after dawn, as ever.\n- Home"


def test_the_pieces_add_up_to_the_page():
    for source in (
        PAGE,
        "<!--" * 9,
        "<script><svg>" * 9,
        "a\x85<\u0130",
        "",
        "<",
        "a < b",
        "<p",
        "<script>never ends",
        PAGE[:90],
    ):
        assert "".join(piece.text for piece in pieces_of(source, TEXT)) == source


def test_only_kept_text_is_marked():
    kept = [piece.text for piece in pieces_of(PAGE, TEXT) if piece.kind == "kept"]
    assert kept == ["The miller set out before &amp; after\n dawn, ", "as", " ever.", "Home"]
    assert [piece.text for piece in pieces_of(PAGE, TEXT) if piece.kind == "text"] == [
        "Home", "The", "All rights reserved"
    ]  # fmt: skip
    assert not [piece for piece in pieces_of(PAGE, "") if piece.kind == "kept"]


@pytest.mark.parametrize("size", [10, CUT_OFF + 1, 5000])
def test_hidden_characters_are_counted(size: int):
    source = f"<p>{'x' * 3 * LONGEST}</p>" + "<a>menu</a>" * size + f"<p>{TEXT}</p>" + "<i>more</i>" * size
    shown = shown_pieces(pieces_of(source, TEXT))
    written = sum(len(piece.text) for piece in shown if piece.kind != "cut")
    cut = sum(int(piece.text.replace(",", "")) for piece in shown if piece.kind == "cut")
    assert written + cut == len(source)
    assert written < 4000
    assert HtmlPiece("kept", TEXT) in shown

"""The page Inside equals the Python API: the architecture, and a text on its way through the network."""

import dataclasses
from urllib.parse import quote, urlencode

import jax
import numpy as np
import pytest

from lm.inspect.inspector import Inspector
from lm.model.transformer import Transformer
from lm.parallel import one_device_mesh
from lm.serving.fields import Fields
from lm.tokenizer.characters import CharacterTokenizer
from tests.lm.model_configs import FAMILIES, MODERN
from tests.window.browser import settle
from viewer.page import key_of, window_html
from viewer.training_data import visible
from viewer.window import model_views

TEXT = "Once upon a time there was a little girl"
TOKEN, LAYER, HEAD = 6, 2, 4
OVER_THE_TEXT = ".inside-two .inside-token"


@pytest.fixture(scope="module")
def inspector(stories) -> Inspector:
    return stories.inspector


def inside(address: str, **parameters: object) -> str:
    return f"{address}#inside?{urlencode(parameters, quote_via=quote)}"


def opened(open_page, address: str):
    page = open_page(address)
    page.wait_for_selector(OVER_THE_TEXT)  # the server's first answer compiles a program
    settle(page)
    return page


def percents(texts: list[str]) -> np.ndarray:
    return np.array([float(text.replace("✓", "").replace("–", "0")) / 100 for text in texts])


def counts_of(page) -> list[int]:
    """Parameters of each part of the drawing."""
    shown = page.locator(".inside-flow .inside-name small").all_inner_texts()
    return [int(text.split(" · ")[0].replace(",", "")) for text in shown if "·" in text]


@pytest.mark.slow
def test_the_numbers_of_a_text_equal_those_of_the_python_api(stories, inspector, open_page):
    found = inspector.layers(TEXT, top=5)
    page = opened(open_page, inside(stories.window, text=TEXT, token=TOKEN, layer=LAYER, head=HEAD))
    words = lambda ids: [visible(inspector.tokenizer.token_bytes(id)) for id in ids]
    assert page.locator(f"{OVER_THE_TEXT} bdi").all_inner_texts() == words(found.ids_T.tolist())
    weights = percents(page.locator(f"{OVER_THE_TEXT} small").all_inner_texts())
    np.testing.assert_allclose(weights, found.attention_LHTS[LAYER, HEAD, TOKEN], atol=0.0051)
    guesses = page.locator(".inside-guess")
    assert guesses.locator("bdi").all_inner_texts() == words(found.lens_ids_ETK[..., 0].ravel().tolist())
    shares = percents(guesses.locator("small").all_inner_texts())
    np.testing.assert_allclose(shares, found.lens_probabilities_ETK[..., 0].ravel(), atol=0.0051)
    best = found.lens_ids_ETK[..., 0]
    changed = np.concatenate([np.zeros_like(best[:1]), best[1:] != best[:-1]]).astype(bool).ravel()
    marked = guesses.evaluate_all("all => all.map((one) => one.classList.contains('inside-changed'))")
    assert marked == changed.tolist() and any(marked)
    added = np.stack([found.attention_out_LT[:, TOKEN], found.mlp_out_LT[:, TOKEN]], axis=1).ravel()
    rows = page.locator(".inside-stream tbody tr")
    numbers = [[float(one) for one in row.locator(".inside-number").all_text_contents()] for row in rows.all()[1:]]
    np.testing.assert_allclose([row[:2] for row in numbers], added.reshape(-1, 2), atol=0.0051)
    assert f"actual token: {100 * found.next_probability_ET[-1, TOKEN]:.1f} %" in page.inner_text(".inside-truth")


@pytest.mark.slow
def test_a_matrix_is_opened_and_closed_by_the_keyboard(stories, inspector, open_page):
    page = opened(open_page, inside(stories.window, text=TEXT))
    total = inspector.parameters
    assert page.inner_text(".inside-about dd b") == f"{total:,}" and sum(counts_of(page)) == total

    def wait_until_shown(name: str) -> None:
        heading = (
            "name => document.activeElement.matches('.inside-about h2') && document.activeElement.textContent === name"
        )
        page.wait_for_function(heading, arg=name)

    def enter(name: str) -> str:
        """The text next to the drawing, after the part of that name was selected."""
        page.get_by_role("button", name=name, exact=True).first.focus()
        page.keyboard.press("Enter")
        wait_until_shown(name)  # not the button itself, which has the same text
        return page.inner_text(".inside-about")

    block = enter(f"Block {LAYER + 1}")
    expected = inspector.architecture().children[1].children[LAYER]
    assert f"{expected.parameters:,}" in block and sum(counts_of(page)) == expected.parameters
    attention = next(part for part in expected.children if part.kind == "attention")
    assert f"{attention.parameters:,}" in enter("Attention") and attention.formula in page.inner_text(
        ".inside-about"
    ).replace("\u200b", "")
    head = enter(f"Head {HEAD + 1}")
    config = inspector.config
    assert (
        f"{4 * config.width * config.head_channels:,}" in head
    )  # its part of queries, keys, values, and of the output
    names = page.locator(".inside-crumbs li").all_inner_texts()
    assert [name.strip("› \n") for name in names] == ["The network", "Blocks", "Block 3", "Attention", "Head 5"]
    for back in ("Attention", "Block 3", "Blocks", "The network"):
        page.keyboard.press("Escape")
        wait_until_shown(back)
    page.keyboard.press("Escape")  # the first layer has nothing above it
    assert page.inner_text(".inside-about h2") == "The network"


@pytest.mark.slow
def test_the_selection_is_in_the_url(stories, open_page):
    page = opened(open_page, inside(stories.window, text=TEXT))
    page.locator(".strip:has(.inside-token)").first.focus()
    page.keyboard.press("Home")
    for _ in range(TOKEN):
        page.keyboard.press("ArrowRight")
    page.get_by_role("button", name=f"Layer {LAYER + 1}, head {HEAD + 1}").click()
    page.keyboard.press("ArrowRight")
    shown = lambda: [
        page.inner_text(one) for one in (".inside-followed", ".inside-figure h3", ".inside-two .inside-read")
    ]
    before = shown()
    assert f"token {TOKEN + 1} of" in before[0] and before[1] == f"Layer {LAYER + 1}, head {HEAD + 2}"
    page.reload()
    page.wait_for_selector(OVER_THE_TEXT)
    assert shown() == before
    page.fill("#prompt", "Once upon")
    page.wait_for_function("() => document.querySelectorAll('.inside-two .inside-token').length === 3")
    assert "token 3 of 3" in page.inner_text(".inside-followed")  # the remaining part of the text
    page.fill("#prompt", TEXT)
    page.wait_for_function("() => document.querySelectorAll('.inside-two .inside-token').length > 9")
    count = page.locator(OVER_THE_TEXT).count()
    assert f"token {count} of {count}" in page.inner_text(".inside-followed")  # typing selects the end


WINDOWS = dataclasses.replace(MODERN, attention_windows=(3, 0))
SLOW = {name: pytest.param(config, id=name, marks=pytest.mark.slow) for name, config in FAMILIES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("config", [pytest.param(WINDOWS, id="windows"), *SLOW.values()])
def test_every_family_is_drawn_completely_and_its_mask_is_visible(config, open_page, tmp_path):
    """From recorded answers: parameters add up, and masked positions have hatching instead of a weight."""
    tokenizer, text = CharacterTokenizer("\n abcdefgh"), "abc def "
    model = jax.jit(Transformer, static_argnums=0)(config, jax.random.key(0))
    inspector = Inspector(model, config, tokenizer, one_device_mesh(config))
    fields = Fields({"text": text}, ("text", "top"))
    answers = {
        key_of("model", {}): {"name": "a", "step": 0, "steps": [0], "parameters": inspector.parameters, "prompt": text},
        key_of("architecture", {}): inspector.architecture().as_json() | {"config": dataclasses.asdict(config)},
        key_of("layers", {"text": text}): model_views.layers(None, inspector, fields),  # ty: ignore[invalid-argument-type]
    }
    (tmp_path / "window.html").write_text(window_html(answers))
    page = opened(open_page, inside((tmp_path / "window.html").as_uri(), token=5))
    assert sum(counts_of(page)) == inspector.parameters == sum(leaf.size for leaf in jax.tree.leaves(model))
    length = page.locator(OVER_THE_TEXT).count()
    for layer in range(config.layers):
        page.get_by_role("button", name=f"Layer {layer + 1}, head 1", exact=True).click()
        seen = min(6, config.window(layer) or 6)
        assert page.locator(".inside-two .inside-hidden").count() == length - seen
        weights = percents(page.locator(f"{OVER_THE_TEXT} small").all_inner_texts())
        assert abs(weights.sum() - 1) < 0.04 and (weights > 0).sum() <= seen

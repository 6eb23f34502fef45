"""The page of a ladder says what its figures say."""

import dataclasses

import lxml.html
import pytest

from configs import demo
from lm.scaling.ladder import Rung
from lm.scaling.study import Measured, Study, study, study_text
from tests.lm.scaling.synthetic import TRUE, measurements
from viewer.scaling.page import render

DEMO = demo.get_config()


def rung(parameters: float, tokens: float, held_out: bool = False) -> Rung:
    """One whose N and D are those of a synthetic measurement."""
    context = DEMO.model.context_length
    train = dataclasses.replace(DEMO.train, batch_size=8, steps=round(tokens / 8 / context))
    return Rung(round(parameters), DEMO.model, train, held_out)


@pytest.fixture(scope="module")
def found() -> Study:
    points = [Measured(rung(one.parameters, one.tokens), one.loss) for one in measurements(noise=0.002)]
    large = rung(2.56e8, 2.5e9, held_out=True)
    points.append(Measured(large, 1.01 * TRUE.loss(large.parameters, large.tokens)))
    failed = [(rung(1e6, 3e7), "launch.train ended with code 1 <b>")]
    return study(points, failed, budget=1e18, corpus_tokens=10**10)


def test_page_and_text_have_every_rung_and_both_losses_of_what_was_held_out(found):
    html, text = render(found, "tales"), study_text(found)
    page = lxml.html.fromstring(html)
    rows = page.xpath("//section[1]//tbody/tr")
    assert len(rows) == 18 and len(page.xpath("//tr[@class='strong']")) == 1
    assert "&lt;b&gt;" in html and "failed: launch.train ended with code 1" in rows[-1].text_content()
    one = found.held_out[0]
    for said in (f"{one.loss:.4f}", f"{found.prediction(one).value:.4f}", f"{100 * found.error(one):+.2f} %"):
        assert said in rows[16].text_content() and said in text
    assert found.error(one) == pytest.approx(-0.01, abs=0.006)
    assert len(page.xpath("//figure//div[@class='wide']//*[local-name()='svg']")) == 2
    assert html.count("<script") == 0 and "http://" not in html.replace("http://www.w3.org/", "")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"budget": 1e25}, "times the arithmetic of the largest rung. So far away N* and D* are a guess"),
        ({"corpus_tokens": 10**6}, "times the 1,000,000 tokens of this corpus, and text read so often is worth less"),
        ({"held_out": ()}, "No larger rung was measured"),
    ],
    ids=["far", "small corpus", "nothing held out"],
)
def test_what_limits_a_recommendation_is_said(found, asked, said):
    assert found.remarks() == [] and said not in study_text(found)
    found = dataclasses.replace(found, **asked)
    assert said in study_text(found) and any(said in remark for remark in found.as_json()["remarks"])
    assert said in lxml.html.fromstring(render(found, "tales")).text_content()

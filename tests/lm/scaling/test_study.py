"""The results of a ladder, as text and as JSON."""

from dataclasses import replace

import pytest

from configs import demo
from lm.scaling.ladder import Rung
from lm.scaling.study import Measured, Study, study, study_text
from tests.lm.scaling.synthetic import TRUE, measurements

DEMO = demo.get_config()


def rung(parameters: float, tokens: float, held_out: bool = False) -> Rung:
    """A rung with the N and D of a synthetic measurement."""
    context = DEMO.model.context_length
    train = replace(DEMO.train, batch_size=8, steps=round(tokens / 8 / context))
    return Rung(round(parameters), DEMO.model, train, held_out)


@pytest.fixture(scope="module")
def found() -> Study:
    points = [Measured(rung(one.parameters, one.tokens), one.loss) for one in measurements(noise=0.002)]
    large = rung(2.56e8, 2.5e9, held_out=True)
    points.append(Measured(large, 1.01 * TRUE.loss(large.parameters, large.tokens)))
    failed = [(rung(1e6, 3e7), "launch.train ended with code 1 <b>")]
    return study(points, failed, budget=1e18, corpus_tokens=10**10)


def test_text_and_json_have_the_predicted_and_measured_losses_of_held_out_rungs(found):
    text, figures = study_text(found), found.as_json()
    one, row = found.held_out[0], figures["rungs"][-1]
    for said in (f"{one.loss:.4f}", f"{found.prediction(one).value:.4f}", f"{100 * found.error(one):+.2f} %"):
        assert said in text
    assert found.error(one) == pytest.approx(-0.01, abs=0.006) == row["error"]
    assert (len(figures["rungs"]), row["held_out"], row["loss"]) == (17, True, one.loss)
    assert figures["failed"] == [{"name": found.failed[0][0].name, "why": "launch.train ended with code 1 <b>"}]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"budget": 1e25}, "times the arithmetic of the largest rung. At that distance N* and D* are a guess"),
        ({"corpus_tokens": 10**6}, "times the 1,000,000 tokens of this corpus, and text repeated so often helps less"),
        ({"held_out": ()}, "No larger rung was measured"),
    ],
    ids=["far", "small corpus", "nothing held out"],
)
def test_limits_of_a_recommendation_are_reported(found, asked, said):
    assert found.remarks() == [] and said not in study_text(found)
    found = replace(found, **asked)
    assert said in study_text(found) and any(said in remark for remark in found.as_json()["remarks"])

"""lm-eval's local-completions against a server: log-likelihoods equal those of the model, for the right tokens."""

import numpy as np
import pytest

from configs.experiment.run_folder import RunFolder
from lm.parallel import one_device_mesh
from tests.corpus import texts, tiny_experiment
from tests.lm.inference.models import log_probabilities
from tests.server_process import quick_environment, serving

MODEL = tiny_experiment().model
PAIRS = [
    ("The miller", " carried"),
    ("The miller ", "was"),
    ("", "The village"),
    ("A farmer", " carried grain"),
    ("", "a"),
]


def log_likelihoods(run) -> list[tuple[float, bool]]:
    """(log p of each continuation after its context, whether it is greedy), by a whole forward pass."""
    loaded = RunFolder(run).load(mesh=one_device_mesh(MODEL))
    log_p = log_probabilities(loaded.model, MODEL.context_length)
    found = []
    for context, continuation in PAIRS:
        whole = loaded.tokenizer.encode(context + continuation)
        before = len(loaded.tokenizer.encode(context.rstrip())) if context else 0
        scores_SV = log_p([loaded.tokenizer.bos_id, *whole])
        places = range(before, len(whole))
        likeliest = all(scores_SV[i].argmax() == whole[i] for i in places)
        found.append((sum(scores_SV[i, whole[i]] for i in places), likeliest))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_local_completions_return_the_models_log_likelihoods(run):
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    expected = log_likelihoods(run)
    pairs = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(PAIRS)]
    until = {"until": ["\n\n"], "max_gen_toks": 5, "temperature": 0}
    begun = [Instance("generate_until", {}, (text[:12], until), number) for number, text in enumerate(texts(3))]

    def check(url: str, **settings: object) -> None:
        client = LocalCompletionsAPI(
            model="tiny", base_url=f"{url}/v1/completions", max_length=MODEL.context_length - 1, **settings
        )
        assert client.tokenizer_backend == "remote"
        for (score, greedy), (wanted, likeliest) in zip(client.loglikelihood(pairs), expected, strict=True):
            np.testing.assert_allclose(score, wanted, atol=1e-3)
            assert greedy == likeliest
        (rolled,) = client.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("The village",), 0)])
        np.testing.assert_allclose(rolled, expected[2][0], atol=1e-3)
        answers = client.generate_until(begun)
        assert len(answers) == 3 and all(isinstance(one, str) for one in answers)

    with serving(run, "--slots", "3", environment=quick_environment()) as server:
        for settings in ({"batch_size": 2}, {"num_concurrent": 4}, {"tokenized_requests": False}):
            check(server.url, **settings)
    assert len({round(score, 6) for score, _ in expected}) == len(PAIRS)

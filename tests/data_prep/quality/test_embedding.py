"""A BERT with a linear head as a filter gives the scores of transformers for a small random model."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from data_prep.quality.embedding import EmbeddingFilter, load_classifier
from data_prep.text.passage import Passage
from lm.errors import InputError, UsageError

WIDTH, LAYERS, INNER, VOCABULARY, POSITIONS = 16, 2, 24, 40, 12
SCORES = {(2, 5, 6, 7, 3): -0.98038, (2, 3): -0.99284, (2, *range(4, 14), 3): -0.98862}
"""{tokens: score} by BertForSequenceClassification of transformers 5.24.0 in float32 (torch 2.13, CPU) with the weights
of `tensors`."""


def shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors by their names in transformers."""
    linear = lambda name, outputs, inputs: {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    norm = lambda name: {f"{name}.LayerNorm.weight": (WIDTH,), f"{name}.LayerNorm.bias": (WIDTH,)}
    rows = {"word": VOCABULARY, "position": POSITIONS, "token_type": 2}
    found: dict[str, tuple[int, ...]] = {}
    found |= {f"bert.embeddings.{name}_embeddings.weight": (number, WIDTH) for name, number in rows.items()}
    found |= norm("bert.embeddings")
    for layer in range(LAYERS):
        at = f"bert.encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            found |= linear(f"{at}.attention.self.{name}", WIDTH, WIDTH)
        found |= linear(f"{at}.attention.output.dense", WIDTH, WIDTH) | norm(f"{at}.attention.output")
        found |= linear(f"{at}.intermediate.dense", INNER, WIDTH)
        found |= linear(f"{at}.output.dense", WIDTH, INNER) | norm(f"{at}.output")
    return found | linear("bert.pooler.dense", WIDTH, WIDTH) | linear("classifier", 1, WIDTH)


def tensors() -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    return {
        name: random.standard_normal(shape).astype(np.float32) * np.float32(0.3)
        for name, shape in sorted(shapes().items())
    }


def write_model(folder, **about):
    folder.mkdir(exist_ok=True)
    config: dict[str, object] = {
        "architectures": ["BertForSequenceClassification"],
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
    }
    config |= {"num_attention_heads": 4, "max_position_embeddings": POSITIONS, "hidden_act": "gelu"} | about
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors(), folder / "model.safetensors")
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3} | {f"w{n}": n for n in range(4, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    setattr(tokenizer, "pre_tokenizer", pre_tokenizers.WhitespaceSplit())  # noqa: B010 - no type of ty's
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    setattr(tokenizer, "post_processor", processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends))  # noqa: B010
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return write_model(tmp_path_factory.mktemp("bert") / "model")


def test_scores_equal_those_of_transformers(model):
    one = EmbeddingFilter(min_score=0, model=model)
    for ids, score in SCORES.items():
        assert load_classifier(one).score(list(ids)) == pytest.approx(score, abs=2e-5)
        assert one.measure(Passage(" ".join(f"w{token}" for token in ids[1:-1]))) == [round(score, 3)]
    assert len(one.external_inputs()) == 3


def test_only_the_first_tokens_of_a_long_text_are_scored(model):
    one = EmbeddingFilter(min_score=0, model=model, max_tokens=5)
    assert one.measure(Passage("w5 w6 w7")) == one.measure(Passage("w5 w6 w7 w8 w9 w10" * 50))
    beyond = EmbeddingFilter(min_score=0, model=model)  # as many as the model has positions: no error
    assert beyond.measure(Passage("w5 " * 100)) == beyond.measure(Passage("w5 " * 10))


def test_other_models_are_rejected_by_name(tmp_path):
    roberta = write_model(tmp_path / "roberta", architectures=["RobertaModel"])
    classes = write_model(tmp_path / "classes")
    save_file(tensors() | {"classifier.weight": np.zeros((2, WIDTH), np.float32)}, f"{classes}/model.safetensors")
    for model, error, told in (
        (roberta, UsageError, "is a RobertaModel"),
        (classes, UsageError, r"classifier of shape \(2, 16\), but a score is one output, \(1, 16\)"),
        (str(tmp_path / "nowhere"), InputError, "nowhere"),
    ):
        with pytest.raises(error, match=told):
            EmbeddingFilter(min_score=0, model=model).measure(Passage("w5"))
    with pytest.raises(UsageError, match="model is empty"):
        EmbeddingFilter(min_score=0, model="")
    with pytest.raises(UsageError, match="finite"):
        EmbeddingFilter(min_score=float("nan"), model=roberta)


LONGER = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("normalizer", LONGER),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}, LONGER, LONGER, LONGER]}),
        ("pre_tokenizer", SPLIT),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, SPLIT]}),
    ],
)  # fmt: skip
def test_tokenizer_steps_unknown_to_bert_are_rejected_before_encoding(tmp_path, part, step):
    """Three of these steps exhausted the memory for the text "a" and crashed the process."""
    folder = write_model(tmp_path / "model")
    path = tmp_path / "model/tokenizer.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {part: step}))
    one = EmbeddingFilter(min_score=0, model=folder)
    with pytest.raises(InputError, match=rf"has the {part} '(Replace|Split)', but only"):
        one.measure(Passage("a" * 60 + "!"))
    bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
    path.write_text(json.dumps(told | {"normalizer": bert | {"lowercase": True}}))
    assert np.isfinite(one.measure(Passage("w5"))[0])

"""The window's computing scripts, run in a browser, give the same results as Python."""

import base64
import itertools
import json
import random
import unicodedata
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import TokenizerConfig
from lm.inference.requests import SamplingParams
from lm.inference.sampling import Sampling, likeliest, weights
from lm.tokenizer import BytePairTokenizer, Tokenizer, train_bpe
from lm.tokenizer.base import whole_characters
from lm.tokenizer.encoding import LONGEST_RUN, numbered
from lm.tokenizer.fast import CODE_POINTS, surrounded, telling_tokenizer
from lm.tokenizer.hugging_face.writing import merged_from
from lm.tokenizer.patterns import SPLIT_PATTERNS
from lm.tokenizer.published import load_published
from lm.tokenizer.sentencepiece import train_sentencepiece
from tests.run_files import REPOSITORY
from viewer.page import STATIC
from viewer.tokenizer.samples import KINDS, LANGUAGES
from viewer.training_data import visible
from viewer.window.tokens import vocabulary

SHARED_VOCAB = REPOSITORY / "../shared/data/vocab"
SCRIPTS = ("dom", "bpe_pattern", "bpe", "tokens_text", "tokens_merges", "predict_sampling", "training_compare")
POSSESSIVE = (  # as openai/tiktoken writes cl100k
    r"'(?i:s|d|m|t|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
HOSTILE = [
    "", " ", "\n", "it's IT'S 'S it'ſ \u212a'LL we'Ve",
    "a\u0085b\ufeffc\u00a0\u2028d  \r\n\r\n \r x", " \n \n\n  \t\tx   ",
    "\U0001f469\u200d\U0001f4bb\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308",
    "<|endoftext|> <|fim_prefix|><|endoftext|", "\x00\x01\x1c\x1f\x7f\x9b", "\ud800x\udc00\ud83d\ude00\udfff",
    "\u202eback\u202c", "aaaa" * 80, "abcd" * 60, "ÜNÏCÖDÉ ẞß ŒUVRE ǅaǆ e\u0301\u0323", "12345678901 ١٢٣٤٥ ५६७ ⅷ²",
    " " * 300 + "x", "=" * 200,
    *LANGUAGES.values(), *KINDS.values(),
]  # fmt: skip


def random_texts(count: int) -> list[str]:
    rng = random.Random(0)
    scripts = (0x20, 0xC0, 0x370, 0x400, 0x5D0, 0x620, 0x905, 0xE01, 0x10A0, 0x1E00, 0x3041, 0x4E00, 0xAC00, 0x1F600)
    pool = ["a", "B", "'s", "'LL", " ", "  ", "\n", "\r\n", "\t", "1", "\u200d", "\u0301", ".", "\x00"]
    pool += [chr(first + step) for first in scripts for step in range(40)]
    return ["".join(rng.choices(pool, k=rng.randrange(1, 60))) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, BytePairTokenizer]:
    texts = [*LANGUAGES.values(), *KINDS.values()]
    made = {name: train_bpe(texts, TokenizerConfig(700, name, 10**6)) for name in SPLIT_PATTERNS}
    cl100k = made["cl100k"]
    # A token that no merges produce, as in Llama 3's vocabulary.
    whole = (*cl100k.tokens, "Schiffmühle".encode())
    made["whole"] = BytePairTokenizer(cl100k.pattern, whole, special_tokens=numbered(whole, ("<|endoftext|>",)))
    made["possessive"] = BytePairTokenizer(POSSESSIVE, cl100k.tokens, special_tokens=cl100k.special_tokens)
    return made


@pytest.fixture(scope="module")
def ask(browser) -> Generator[Callable[..., Any]]:
    """`ask("a => ...", a)` in a page that only has the scripts; arguments may have lone surrogates."""
    page = browser.new_page()
    page.add_script_tag(content="\n".join((STATIC / f"{name}.js").read_text() for name in SCRIPTS))
    yield lambda function, *given: page.evaluate(f"(given) => ({function})(...JSON.parse(given))", json.dumps(given))
    page.close()


ENCODE = """async (answer, texts) => {
  const made = bpeVocabulary(answer);
  const out = [];
  for (const text of texts) out.push(await bpeFinish(bpeEncode(made, text)));
  return out;
}"""


def assert_same_ids(ask, tokenizer: Tokenizer, texts: list[str]) -> None:
    found = ask(ENCODE, vocabulary("one", tokenizer), texts)
    for text, ids in zip(texts, found, strict=True):
        assert ids == tokenizer.encode(text), repr(text[:200])


@pytest.mark.parametrize("name", [*SPLIT_PATTERNS, "whole", "possessive"])
def test_bpe_in_the_page_gives_the_ids_of_encode(ask, tokenizers, name):
    assert_same_ids(ask, tokenizers[name], HOSTILE + random_texts(150))


def test_a_long_piece_is_merged_like_a_short_one_and_runs_of_blanks_are_split_alike(ask, tokenizers):
    texts = ["".join(random.Random(1).choices("abcdefgh", k=5_000)), " " * (LONGEST_RUN + 7) + "x", "mühle" * 300]
    assert_same_ids(ask, tokenizers["gpt2"], texts)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_VOCAB.is_dir(), reason="needs ../shared/data/vocab")
@pytest.mark.parametrize("file", ["r50k_base", "cl100k_base"])
def test_published_vocabularies_give_the_same_ids(ask, file):
    letters = "".join(random.Random(1).choices("abcdefgh", k=10**6))  # a line of 1 MB without a blank
    published = load_published(str(SHARED_VOCAB / f"{file}.tiktoken"))
    assert_same_ids(ask, published, [*HOSTILE, *random_texts(1000), letters, "字" * 200_000, " " * 450_000 + "x"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SPLIT_PATTERNS)
def test_every_character_of_unicode_is_split_alike(ask, name):
    """Except for newer characters than Python's Unicode: the browser may know their categories, tiktoken does not."""
    points = [p for run in CODE_POINTS for p in run if unicodedata.category(chr(p)) != "Cn"]
    texts = ["".join(surrounded(chr(p)) for p in block) for block in itertools.batched(points, 4096)]
    assert_same_ids(ask, telling_tokenizer(SPLIT_PATTERNS[name]), texts)


@pytest.mark.parametrize("pattern", [r"[a-z&&[^b]]|\s", r"(?m)^a", r"\bword", r"(?i:ä)", r"(a", r"[a"])
def test_a_pattern_that_may_differ_in_the_browser_is_left_to_the_server(ask, pattern):
    answer = {"kind": "bpe", "name": "", "bytes": [], "special": {}, "pattern": pattern}
    assert ask("(answer) => bpeVocabulary(answer).regexp", answer) is None


def test_a_text_that_the_pattern_partly_skips_is_rejected(ask, tokenizers):
    lossy = dict(vocabulary("one", tokenizers["gpt2"]), pattern=r"\p{L}+")
    found = ask(f"(answer) => ({ENCODE})(answer, ['ab 1']).catch((error) => error.message)", lossy)
    assert "does not match" in found and '" 1"' in found


def test_work_is_split_into_slices_and_ends_when_the_text_is_gone(ask, tokenizers):
    found = ask(
        """async (answer, text) => {
          const made = bpeVocabulary(answer), control = new AbortController();
          let turns = 0;
          const timer = setInterval(() => { if (++turns === 2) control.abort(); }, 1);
          try { await bpeFinish(bpeEncode(made, text), control.signal); return "it went on to the end"; }
          catch (error) { return error.name; } finally { clearInterval(timer); }
        }""",
        vocabulary("one", tokenizers["cl100k"]), "".join(random.Random(2).choices("abcdefgh", k=10**6)),
    )  # fmt: skip
    assert found == "AbortError"


@pytest.mark.fast_rows
@pytest.mark.parametrize("name", ["cl100k", "two letters"])
def test_merges_join_the_lowest_rank_everywhere_until_they_equal_encode(ask, tokenizers, name):
    few = train_bpe(["aaaabbabaabb" * 40, "abab" * 99], TokenizerConfig(268, r"\s+|\S+", 10**6))
    tokenizer = tokenizers.get(name, few)
    letters = ["".join(random.Random(seed).choices("ab ", k=60)) for seed in range(20)]
    texts = letters if tokenizer is few else [*(text[:120] for text in HOSTILE), *random_texts(10)]
    stories, halves = ask(
        "(answer, texts) => { const made = bpeVocabulary(answer);"
        " return [texts.map((text) => bpeStory(made, text)), made.parts.map((_, id) => bpeHalves(made, id))]; }",
        vocabulary("one", tokenizer), texts,
    )  # fmt: skip
    tokens, ranks = tokenizer.tokens, tokenizer.ranks
    for text, story in zip(texts, stories, strict=True):
        ids = story["start"]
        assert b"".join(tokens[id] for id in ids) == whole_characters(text).encode()
        assert all(len(tokens[id]) == 1 for id in ids)
        for step in story["steps"]:
            assert tokens[step["left"]] + tokens[step["right"]] == tokens[step["rank"]] and step["at"]
            assert all(tokens[ids[at]] + tokens[ids[at + 1]] == tokens[step["rank"]] for at in step["at"])
            left = {*step["at"]}
            ids = [step["rank"] if i in left else id for i, id in enumerate(ids) if i - 1 not in left]
            assert ids == step["ids"]
        assert [step["rank"] for step in story["steps"]] == sorted({step["rank"] for step in story["steps"]})
        assert ids == tokenizer.encode(text)
    expected = [[ranks[half] for half in merged_from(one, ranks)] if len(one) > 1 else None for one in tokens]
    assert halves == [*expected, None]  # the special token's


@pytest.mark.slow
def test_the_merges_of_a_sentencepiece_vocabulary_lead_to_its_tokens(ask):
    corpus = [*LANGUAGES.values(), *KINDS.values()]
    tokenizer = train_sentencepiece(corpus, TokenizerConfig(1000, "gpt2", 10**6, "sentencepiece_bpe"))
    stories = (
        "(answer, texts) => { const made = bpeVocabulary(answer);"
        " return [texts.map((ids) => bpeStoryOf(made, ids)), made.parts.map((_, id) => bpeHalves(made, id)),"
        " texts.map((ids) => tokensTold({ vocabulary: made, part: (id) => made.parts[id],"
        " length: (id) => made.parts[id].length }, ids).bytes.length)]; }"
    )
    texts = [*(text[:200] for text in LANGUAGES.values()), "", "a", "\u202e\U0001f469\u200d\U0001f4bb  \n", "ﬃ" * 9]
    answer, ids = vocabulary("one", tokenizer), [tokenizer.encode(text) for text in texts]
    found, halves, sizes = ask(stories, answer, ids)
    for text, story, end, size in zip(texts, found, ids, sizes, strict=True):
        assert [{"ids": story["start"]}, *story["steps"]][-1]["ids"] == end
        assert size <= len(text.encode())
        counts = [len(story["start"]), *(len(step["ids"]) for step in story["steps"])]
        fewer = [before - after for before, after in itertools.pairwise(counts)]
        assert fewer == [len(step["at"]) for step in story["steps"]]
        order = [answer["order"][step["rank"]] for step in story["steps"]]
        assert order == sorted(order) and -1 not in order
    spelt = tokenizer.token_bytes
    for id, pair in enumerate(halves):
        if pair:
            assert b"".join(map(spelt, pair)) == spelt(id)
            merged = [answer["order"][one] for one in pair if len(spelt(one).decode(errors="replace")) > 1]
            assert all(one < answer["order"][id] for one in merged)
        else:
            assert id < 258 or len(spelt(id).decode()) == 1
    other = train_sentencepiece(corpus, TokenizerConfig(1000, "gpt2", 10**6, "sentencepiece_unigram"))
    assert "order" not in vocabulary("one", other)


def test_tokens_are_printed_and_texts_measured_like_in_python(ask):
    parts = [text.encode("utf-8", "replace") for text in HOSTILE]
    parts += [b"\xe2\x80", b"\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5", b"a\xf0\x9f\x91b", b"\xf0\x9f\x91\xa9\xe2"]
    found = ask("(all) => all.map((hex) => tokensVisible(bpeFromHex(hex)))", [part.hex() for part in parts])
    assert found == [visible(part) for part in parts]
    whole = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in HOSTILE]
    sizes = ask("(texts) => texts.map(tokensSize)", HOSTILE)
    assert sizes == [{"characters": len(text), "bytes": len(text.encode())} for text in whole]


SETTINGS = [
    (temperature, top_k, top_p, min_p)
    for temperature in (0.0, 0.05, 0.7, 2.0)
    for top_k in (0, 1, 7)
    for top_p in (1.0, 0.9, 0.31)
    for min_p in (0.0, 0.02, 0.3)
]


def test_sliders_keep_the_same_tokens_as_the_sampler(ask):
    rng = np.random.default_rng(0)
    extreme = np.full(333, -1e4)
    extreme[:3] = (0.0, 90.0, 89.0)
    left = jax.jit(weights)
    for row in (rng.normal(0, 3, 333), np.round(rng.normal(0, 2, 333)), np.full(333, 1.0), extreme):
        logits = row.astype(np.float32)
        sent = {"type": "float32", "data": base64.b64encode(logits.tobytes()).decode()}
        found = ask(
            "(sent, all) => { const logits = toArray(sent);"
            " return all.map((one) => [...predictReshape(logits, one)]); }",
            sent, [dict(zip(("temperature", "topK", "topP", "minP"), one, strict=True)) for one in SETTINGS],
        )  # fmt: skip
        params = [
            SamplingParams(temperature=t, top_k=k, top_p=p, min_p=m, seed=0, max_tokens=1) for t, k, p, m in SETTINGS
        ]
        logits_BV = jnp.broadcast_to(logits, (len(SETTINGS), len(logits)))
        kept_BV = np.asarray(left(logits_BV, Sampling.of(params)), np.float64)
        best = int(likeliest(logits_BV[:1])[0])
        expected = kept_BV / kept_BV.sum(1, keepdims=True)
        expected[[t == 0 for t, *_ in SETTINGS]] = np.eye(len(logits))[best]
        np.testing.assert_allclose(found, expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "value"), [("0.3", 0.3), ("5", 1), ("-1", 0), ("NaN", 0), ("1e999", 1), ("", 0), ("x", 0), (None, 0)]
)
def test_a_url_sets_a_slider_only_within_its_range(ask, given, value):
    assert ask("(given) => predictSetting('minP', given ?? undefined)", given) == value
    for name, given in (("topP", "-3"), ("temperature", "1e9"), ("topK", "-4")):
        settings = "{ ...PREDICT_PLAIN, [name]: predictSetting(name, given) }"
        left = ask(f"(name, given) => [...predictReshape(new Float32Array([1, 2]), {settings})]", name, given)
        assert sum(left) == pytest.approx(1)


def test_selected_tokens_are_appended_to_the_text_as_whole_characters(ask):
    parts = ["a", "\xe2\x80", "\x94", "\xf0\x9f"]
    place = "(parts, text, ids) => predictPlace(text, ids, (id) => parts[id])"
    assert ask(place, parts, "x", [0, 1, 2]) == {"text": "xa—", "pending": []}
    assert ask(place, parts, "x", [0, 1]) == {"text": "xa", "pending": [1]}
    assert ask(place, parts, "x", [0, 1, 2, 0, 3]) == {"text": "xa—a", "pending": [3]}
    assert ask(place, parts, "", [1]) == {"text": "", "pending": [1]}


def test_two_tokenizations_are_compared_at_common_boundaries(ask):
    """Llama 2's tokenizer prepends a blank, which is no byte of the text; a model with a short context drops the
    end."""
    tokens = lambda *parts: [{"text": part, "bytes": part.encode().hex(), "bits": 1} for part in parts]
    stretches = lambda text, *given: [tuple(one.values()) for one in ask("trainingStretches", text, *given)]
    own, llama = tokens("The", " mi", "ll"), tokens(" ", "T", "he", " mill")
    assert stretches("The mill", own, llama) == [("The", 1, 3), (" mill", 2, 1)]
    assert stretches("The mill", llama, own) == [(" The", 3, 1), (" mill", 1, 2)]
    assert stretches("The mill", own, own[:2]) == [("The", 1, 1), (" mi", 1, 1)]
    assert stretches(" The", tokens(" The"), tokens("  The")) == [(" The", 1, 1)]
    assert stretches("", [], []) == []

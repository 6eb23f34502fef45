"""Split patterns with long backtracking are rejected, unlike published ones; so are texts with runs of quadratic
cost."""

import json

import pytest

from lm.errors import UsageError
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from lm.tokenizer.pattern_cost import MOST_STEPS, check_text, runs_of
from lm.tokenizer.patterns import SPLIT_PATTERNS
from lm.tokenizer.published import load_published
from tests.lm.byte_tokenizer import byte_tokenizer
from tests.lm.tokenizer.test_hugging_face_library import smollm2_like

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
PUBLISHED = {
    "Qwen 2": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "DeepSeek V3": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "DeepSeek V3, digits": r"\p{N}{1,3}",
    "DeepSeek V3, scripts": "[一-龥぀-ゟ゠-ヿ]+",
    "Llama 4": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    + CONTRACTIONS
    + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "BLOOM": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "Falcon": "[0-9][0-9][0-9]",
    "GPT-4, possessive": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "digits from the right": r"\d{1,3}(?=(?:\d{3})*\b)",
    "Kimi K2": r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{M}&&[^\p{Han}]]+"
    + CONTRACTIONS
    + r"?|\s+",
}  # fmt: skip
SLOW = [
    r"(a+)+$", r"(a|a)*b", r"(a|aa)+$", "a*a*a*b", "(.*)*x", "(?:a?){30}a{30}", "a?" * 30 + "a" * 30,
    "(a|a)" * 30 + "b",
    "(?:x{1,3})+y", "x{1,3}+y", "a**b", "(a*)*b", "(?=.*.*x)", "a*b*c", "a{0,65}b", "(?:a+b|a)+", "(a{99}){99}",
]  # fmt: skip
NOT_READ = [
    r"(\w+)\1", r"\g<0>", "(?<x>a)", "(?(1)a)", r"\Ka", "(", ")", "[", "[]a]", "(?", "*", "|+", "\\",
    "(" * 50 + ")" * 50,
]  # fmt: skip


@pytest.mark.parametrize("name", [*SPLIT_PATTERNS, *PUBLISHED])
def test_published_patterns_are_accepted(name):
    assert runs_of((SPLIT_PATTERNS | PUBLISHED)[name]) is not ...


@pytest.mark.parametrize("pattern", [*SLOW, *NOT_READ], ids=lambda pattern: pattern[:20])
def test_patterns_with_superlinear_time_from_one_position_are_rejected(pattern):
    with pytest.raises(ValueError, match="the split pattern"):
        runs_of(pattern)


def test_runs_with_too_many_quadratic_steps_are_rejected_by_both_kinds():
    pattern = r"A+(?=b)|[^A]+|A"
    assert runs_of(r"\s+|\S+") is None
    check_text(pattern, "A" * 7_000)
    check_text(pattern, "AB" * 1_000_000)
    with pytest.raises(UsageError, match=r"could take 100,000,000 steps; the limit is 52,000,000"):
        check_text(pattern, "A" * int(MOST_STEPS**0.5 * 2**0.5))
    found = json.loads(smollm2_like().to_str())
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    found["pre_tokenizer"]["pretokenizers"].insert(0, split)
    for tokenizer in (
        LibraryTokenizer.from_json(json.dumps(found).encode(), "<|endoftext|>"),
        byte_tokenizer(pattern),
    ):
        assert tokenizer.decode(tokenizer.encode("A" * 5_000)) == "A" * 5_000
        for encode in (tokenizer.encode, lambda text, by=tokenizer: by.encode_batch([text])):
            with pytest.raises(UsageError, match="would backtrack too long over"):
                encode("A" * 10_000)


def test_a_file_with_such_a_pattern_is_rejected_by_load(tmp_path):
    found = json.loads(smollm2_like().to_str())
    split = {"type": "Split", "pattern": {"Regex": r"(a+)+$"}, "behavior": "Isolated", "invert": False}
    found["pre_tokenizer"]["pretokenizers"].insert(0, split)
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(UsageError, match=r"cannot be loaded: Regex is .\(a\+\)\+\$.: the split pattern repeats"):
        load_published(str(tmp_path / "tokenizer.json"))

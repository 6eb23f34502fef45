"""train_bpe equals the naive algorithm exactly, for any number of threads and order of texts."""

import collections
import itertools
import os
import random
import subprocess
import sys

import pytest
import regex

from lm.config import TokenizerConfig
from lm.errors import UsageError
from lm.tokenizer import save, train_bpe
from lm.tokenizer.encoding import LONGEST_RUN
from lm.tokenizer.patterns import SPLIT_PATTERNS
from tests.run_files import REPOSITORY

NATURAL = (REPOSITORY / "LICENSE").read_text(
    encoding="utf-8"
) + "Größe, naïve – 東京都 and Ёлка; don't, I'LL, 12345\r\n\r\n  x"
ODD = "aaaaaa aaaaa aaa\u200d 👩‍👩‍👧 \x00\x1c \u0085\u00a0\u3000 ſ's 'ſ ''' \t\t\n \n\nİi̇ ①² ्क"


def naive_bpe(texts: list[str], symbols: int, pattern: str) -> list[bytes]:
    """Reference algorithm: count all pairs, merge the most frequent one, smallest ids first; repeat."""
    pieces = collections.Counter(tuple(piece.encode()) for text in texts for piece in regex.findall(pattern, text))
    tokens = [bytes([byte]) for byte in range(256)]
    while len(tokens) < symbols:
        pairs = collections.Counter()
        for piece, count in pieces.items():
            for pair in itertools.pairwise(piece):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        joined = collections.Counter()
        for piece, count in pieces.items():
            joined[join(piece, best, len(tokens))] += count
        pieces = joined
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return tokens


def join(piece: tuple[int, ...], pair: tuple[int, int], new: int) -> tuple[int, ...]:
    out, i = [], 0
    while i < len(piece):
        if piece[i : i + 2] == pair:
            out.append(new)
            i += 2
        else:
            out.append(piece[i])
            i += 1
    return tuple(out)


def config(vocab_size: int, split_pattern="cl100k", train_characters=10**8, **others) -> TokenizerConfig:
    return TokenizerConfig(vocab_size, split_pattern, train_characters, **others)


def tie_rich(seed: int) -> list[str]:
    """Texts of three letters, in which many pairs are equally frequent and runs overlap."""
    random_ = random.Random(seed)
    return ["".join(random_.choices("ab\u00e9 ", (5, 4, 2, 3), k=random_.randrange(1, 120))) for _ in range(12)]


@pytest.mark.fast_rows
@pytest.mark.parametrize("pattern", SPLIT_PATTERNS)
def test_equals_the_naive_algorithm_on_natural_text(pattern):
    texts = [NATURAL, ODD]
    trained = train_bpe(texts, config(256 + 250 + 1, pattern))
    assert list(trained.tokens) == naive_bpe(texts, 256 + 250, SPLIT_PATTERNS[pattern])


@pytest.mark.parametrize("seed", range(9))
def test_equals_the_naive_algorithm_with_ties(seed):
    texts = tie_rich(seed)
    reference = naive_bpe(texts, 256 + 60, SPLIT_PATTERNS["gpt2"])
    trained = train_bpe(texts, config(len(reference) + 1, "gpt2"))
    assert list(trained.tokens) == reference


def test_order_of_texts_does_not_matter():
    texts = NATURAL.split("\n") + tie_rich(0)
    shuffled = texts.copy()
    random.Random(0).shuffle(shuffled)
    assert shuffled != texts
    assert train_bpe(texts, config(700)) == train_bpe(shuffled, config(700)) == train_bpe(texts[::-1], config(700))


def test_threads_and_processes_do_not_matter():
    program = (
        "from lm.tokenizer import train_bpe; from lm.config import TokenizerConfig; from pathlib import Path\n"
        "texts = Path('LICENSE').read_text(encoding='utf-8').split('\\n') * 30\n"
        "print(train_bpe(texts, TokenizerConfig(800, 'cl100k', 10**8)).fingerprint)"
    )
    found = set()
    for threads in ("1", "7"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        run = subprocess.run(
            [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
        )
        found.add(run.stdout)
    assert len(found) == 1


def test_train_characters_is_an_exact_bound():
    texts = [NATURAL[:1000], NATURAL[1000:2500], NATURAL[2500:]]
    bounded = train_bpe(iter(texts), config(350, train_characters=1700))
    assert (bounded.characters, bounded.documents) == (1700, 2)
    assert bounded.tokens == train_bpe([texts[0], texts[1][:700]], config(350)).tokens
    assert bounded.tokens != train_bpe(texts, config(350)).tokens

    def endless():
        while True:
            yield NATURAL

    assert train_bpe(endless(), config(300, train_characters=50_000)).characters == 50_000


def test_too_little_text_is_a_usage_error_with_both_numbers():
    with pytest.raises(UsageError, match=r"vocab_size = 8192 asks for 7935 merges.* only 3\. Set vocab_size to 260"):
        train_bpe(["abcd"], config(8192))


def test_too_little_text_makes_a_smaller_vocabulary_if_allowed():
    fewer = train_bpe(["abcd"], config(8192, allow_fewer=True))
    assert fewer.vocab_size == 260 and fewer.tokens == train_bpe(["abcd"], config(260)).tokens
    assert train_bpe(["abcd"], config(258, allow_fewer=True)).vocab_size == 258
    with pytest.raises(UsageError, match="allow_fewer is True"):
        config(8192, allow_fewer=True, algorithm="sentencepiece_bpe")
    with pytest.raises(UsageError, match="allow_fewer is True"):
        config(8192, allow_fewer=True, load="gpt2")


@pytest.mark.parametrize("blank", [" ", "\n "])
def test_long_white_space_does_not_stop_training(blank):
    text = blank * (6 * LONGEST_RUN // len(blank)) + "x"
    trained = train_bpe([text], config(260))
    assert trained.decode(trained.encode(text)) == text


def test_special_tokens_take_the_last_ids():
    trained = train_bpe([NATURAL], TokenizerConfig(400, "gpt2", 10**8, special_tokens=("<|x|>", "<|endoftext|>")))
    assert dict(trained.special_tokens) == {"<|x|>": 398, "<|endoftext|>": 399}
    assert (trained.vocab_size, trained.bos_id, trained.eos_ids, len(trained.tokens)) == (400, 399, {399}, 398)
    assert train_bpe([], config(257)).vocab_size == 257  # the 256 bytes need no text


def test_a_custom_split_pattern():
    pattern = r"[a-z]+|[^a-z]"
    trained = train_bpe([NATURAL], config(300, pattern))
    assert list(trained.tokens) == naive_bpe([NATURAL], 299, pattern)


@pytest.mark.parametrize("names", [(), ("<|x|>",), ("<|endoftext|>",) * 2, ("<|endoftext|>", "")])
def test_impossible_special_tokens_are_rejected(names):
    with pytest.raises(UsageError, match=r"special_tokens is .* must have '<.endoftext.>'"):
        TokenizerConfig(400, "gpt2", 10, special_tokens=names)


@pytest.mark.parametrize(("size", "characters"), [(256, 10), (300, 0), (300, 700_000_001)])
def test_an_impossible_config_is_rejected(size, characters):
    with pytest.raises(UsageError):
        TokenizerConfig(size, "gpt2", characters)


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("gpt4", r"'gpt4', which does not match .* Give one of gpt2, cl100k, o200k, or an expression that ends"),
        ("", "which splits no text"),
        ("(?=.)", "which splits no text"),
        (r"\S+|\s+(?=\S)", "does not match"),
        ("[^中]+", "does not match '中'"),
        ("[^🌾]+", "does not match '🌾'"),
        (r"[\x{0}-\x{FFFF}]+", "does not match '𐀀'"),
        ("(", "has a '.' without"),
        ("[z-a]", "is not a regular expression"),
        (r"[a-\p{L}z-b]", "is not a regular expression"),
        (r"[a-z]+| ", "does not match '.x00' "),
        (r"\S+", "does not match '.t'"),
        (r"(a+)+$|\s+|\S", "Give one of gpt2, cl100k, o200k"),
    ],
)
def test_a_pattern_that_skips_characters_or_backtracks_long_is_rejected_before_training(pattern, said):
    with pytest.raises(UsageError, match=f"tokenizer.split_pattern is .*{said}"):
        train_bpe(["some text"] * 5, TokenizerConfig(270, pattern, 1000))


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("pattern", "text"), [(r"[a-zA-Z]+(?!\.\.)|[^a-zA-Z]+", "ab.."), (r"\S+|\s(?!\s{5})\s*", "a          b")]
)
def test_characters_that_a_pattern_skips_in_context_are_rejected_by_encode(pattern, text):
    tokenizer = train_bpe(["the theme of the thesis"] * 5, TokenizerConfig(260, pattern, 1000))
    assert tokenizer.decode(tokenizer.encode("the theme")) == "the theme"
    for encode in (tokenizer.encode, tokenizer.encode_array):
        with pytest.raises(UsageError, match=r"does not match [0-9]+ bytes of a text that begins with"):
            encode(text)


def test_missing_text_is_reported():
    with pytest.raises(UsageError, match="train_characters is 1,000, which gave 0 documents without text"):
        train_bpe([], TokenizerConfig(300, "cl100k", 1000))


def test_a_special_token_that_is_also_a_token_is_rejected_by_save(tmp_path):
    named = TokenizerConfig(270, "cl100k", 1000, special_tokens=("<|endoftext|>", "a"))
    with pytest.raises(UsageError, match="special_tokens has 'a', which is also token 97 of the vocabulary"):
        save(train_bpe(["the theme of the thesis on themes"] * 5, named), tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"special_tokens": ("<|endoftext|>", "\x1b[31m")}, r"special_tokens has '\\x1b\[31m'; names must consist"),
        ({"special_tokens": ("<|endoftext|>", "\udcff")}, "names must consist of printable"),
        ({"algorithm": "characters", "special_tokens": ("<|endoftext|>", "<|x|>")}, "algorithm = characters has its"),
        ({"load": "gpt2", "special_tokens": ("<|endoftext|>", "<|x|>")}, "load = 'gpt2' has its own"),
        ({"load": "gpt2", "algorithm": "characters"}, "is already trained"),
    ],
)
def test_options_that_would_be_ignored_are_rejected(options, said):
    with pytest.raises(UsageError, match=said):
        TokenizerConfig(50_257, "gpt2", 1000, **options)

"""The model.py of a standalone folder gives our logits, ids and texts in NumPy, for every feature of a model."""

import ast
import functools
import importlib.util
import io
import itertools
import json
import random
import shutil
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sentencepiece import SentencePieceTrainer

from lm.config import RopeScalingConfig, TokenizerConfig
from lm.errors import UsageError
from lm.formats.standalone.tokenizer import python_pattern, tokenizer_json
from lm.formats.standalone.writing import MOST_LINES, TEMPLATE, chosen, model_py, write_standalone
from lm.tokenizer import train_bpe
from lm.tokenizer.characters import CharacterTokenizer
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from lm.tokenizer.patterns import SPLIT_PATTERNS
from lm.tokenizer.sentencepiece import SentencePieceTokenizer, train_sentencepiece
from tests.lm.byte_tokenizer import byte_tokenizer
from tests.lm.model_configs import FAMILIES, random_model, random_parameters
from tests.lm.tokenizer.test_hugging_face_library import llama2_like, smollm2_like
from tests.run_files import LICENSE

TEXTS = [
    "The miller's mill stood by the river; it'll grind 1234 sacks of corn.\n\n  \tDON'T stop, naïve Ünïcode 数字 ٣४!"
]
CHARACTERS = CharacterTokenizer("\n !',.0123456789abcdefghijklmnopqrstuvwxyz")
SCALING = RopeScalingConfig(factor=4.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context_length=8)
EVERYTHING = replace(
    FAMILIES["modern"], kv_heads=1, attention_windows=(3, 0), rope_scaling=SCALING, biases=True, norm="layernorm"
)
CONFIGS = FAMILIES | {
    "everything": EVERYTHING,
    "grouped_untied": replace(FAMILIES["llama"], kv_heads=1, tie_embeddings=False),
}
HOSTILE = (
    "", " ", "\r\n\r\n a", "it's IT'S 'ſ 'LL'", "a\x85b\x1cc\xa0d\u2028e\u180ef", "e\u0301 ๆ ไทย ﷽ 𝕏𝟙𐌀 🙂🏽‍👩",
    "１２３٤٥Ⅻ½²", "\ud83d \udc00x \ud83d\ude00", "<|endoftext|>", "▁ ▁▁a", "tab\tx  \n \n\n  y   ", "ǅǈ ªº ʰ ᾈ ß İı",
    "\0\ufeff\u200b\U000e0001",
)  # fmt: skip


BASE = TokenizerConfig(vocab_size=300, split_pattern="", train_characters=100_000)


@functools.cache
def bpe(pattern="cl100k"):
    return train_bpe([LICENSE, *TEXTS], replace(BASE, split_pattern=pattern))


@functools.cache
def sentencepiece(algorithm):
    return train_sentencepiece([LICENSE], replace(BASE, vocab_size=380, algorithm=algorithm))


def imported(folder):
    """model.py of a folder, as a module."""
    spec = importlib.util.spec_from_file_location(f"model_{random.random()}", folder / "model.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.fast_rows
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_ours_in_one_pass_or_token_by_token(tmp_path, name):
    config = CONFIGS[name]
    model, arrays = random_model(config), random_parameters(config)
    write_standalone(tmp_path, config, arrays, CHARACTERS, name)
    theirs, tokens = imported(tmp_path), list(range(3, 3 + config.context_length))
    tokens[5] = tokens[1]
    ours_TV = np.asarray(jax.jit(lambda m, t: m.logits(m.read(t, jnp.ones_like(t))))(model, jnp.asarray([tokens])))[0]
    cache = theirs.Cache()
    for place, token in enumerate(tokens):
        assert_allclose(theirs.forward([token], cache), ours_TV[place], rtol=0, atol=2e-5)
    cache = theirs.Cache()
    theirs.forward(tokens[:7], cache)
    assert_allclose(theirs.forward(tokens[7:], cache), ours_TV[-1], rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_half_the_size_are_read_as_rounded(tmp_path, dtype):
    config = FAMILIES["llama"]
    arrays = random_parameters(config)
    write_standalone(tmp_path, config, arrays, CHARACTERS, "half", dtype)
    read = imported(tmp_path).P
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert_array_equal(read[name], array.astype(jnp.dtype(dtype)).astype(np.float32))


def test_the_program_is_short_plain_and_runs_on_old_pythons(tmp_path):
    tokenizers = [bpe(), CHARACTERS, sentencepiece("sentencepiece_bpe"), sentencepiece("sentencepiece_unigram")]
    for number, (config, mlp, tokenizer) in enumerate(
        itertools.product((*FAMILIES.values(), EVERYTHING), ("swiglu", "gelu", "relu_squared"), tokenizers)
    ):
        config = replace(config, mlp=mlp, vocab_size=400)
        text = model_py(config, tokenizer, "a title", "bfloat16")
        assert text.count("\n") <= MOST_LINES
        assert max(map(len, text.splitlines())) <= 120
        tree = ast.parse(text, feature_version=(3, 9))
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert modules <= {"argparse", "codecs", "json", "re", "sys", "numpy"}
        assert "#:" not in text and "$" not in text
        (tmp_path / f"m{number}.py").write_text(text, encoding="utf-8")
    # All names are defined, and all imports are used.
    lint = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,E9", str(tmp_path)]
    done = subprocess.run(lint, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_template_lines_are_only_written_for_their_features():
    template = "a\n#: if x\nb\n#: if y\nc\n#: end\n#: else\nd\n#: end\ne\n"
    assert chosen(template, frozenset("x")) == "a\nb\ne\n"
    assert chosen(template, frozenset("y")) == "a\nd\ne\n"
    assert chosen(template, frozenset("xy")) == "a\nb\nc\ne\n"
    text = TEMPLATE.read_text(encoding="utf-8")
    assert text.count("#: if ") == text.count("#: end\n")


@pytest.fixture(scope="module")
def their_tokenizers(tmp_path_factory):
    """{name: (our tokenizer, model.py's)} of all kinds."""
    ours = {name: bpe(name) for name in SPLIT_PATTERNS}
    own = r"[\p{Han}\p{Lu}]+|\p{N}|[^\s\p{N}]|\s+(?!\S)|\s"
    ours["own"] = byte_tokenizer(own, b"ab", b"abc")
    ours |= {kind: sentencepiece(kind) for kind in ("sentencepiece_bpe", "sentencepiece_unigram")}
    ours["SmolLM2"] = LibraryTokenizer.from_json(smollm2_like().to_str().encode(), "<|endoftext|>")
    found, config = {}, replace(FAMILIES["llama"], vocab_size=400)
    arrays = random_parameters(config)
    for name, tokenizer in ours.items():
        folder = tmp_path_factory.mktemp("tokenizer")
        write_standalone(folder, config, arrays, tokenizer, name)
        found[name] = tokenizer, imported(folder).Tokenizer(folder / "tokenizer.json")
    return found


@pytest.mark.parametrize("name", [*SPLIT_PATTERNS, "own", "SmolLM2", "sentencepiece_bpe", "sentencepiece_unigram"])
def test_ids_of_any_text_equal_ours(their_tokenizers, name):
    ours, theirs = their_tokenizers[name]
    drawn = random.Random(5)
    alphabets = ["aA1! \n'\r\t\x85\xa0", "".join(HOSTILE), "".join(TEXTS), "".join(map(chr, range(0x250)))]
    texts = ["".join(drawn.choices(alphabets[n % 4], k=30)) for n in range(120)]
    texts += [
        "".join(chr(drawn.choice((drawn.randrange(0xD800), drawn.randrange(0xE000, 0x110000)))) for _ in range(40))
        for _ in range(40)
    ]
    for text in (*HOSTILE, *TEXTS, *texts):
        assert theirs.encode(text) == ours.encode(text), ascii(text)
    for id in range(ours.vocab_size):
        assert theirs.tokens[id] == ours.token_bytes(id)
    assert (theirs.begin, {*theirs.ends}) == (ours.bos_id, ours.eos_ids)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPLIT_PATTERNS)
def test_every_character_is_split_like_ours(their_tokenizers, name):
    ours, theirs = their_tokenizers[name]
    for first in range(0, 0x30000, 0x100):
        characters = [chr(point) for point in range(first, first + 0x100) if not 0xD800 <= point < 0xE000]
        text = "".join(f"a{c}b {c}1{c}\n{c}A" for c in characters)
        cut = [found.group() for found in theirs.split.finditer(text)]
        assert theirs.encode(text) == ours.encode(text) and "".join(cut) == text


def test_a_tokenizer_that_python_cannot_implement_is_rejected_by_name():
    with pytest.raises(UsageError, match=r"split pattern '\\\\w\+\|\\\\W' is none of gpt2, cl100k, o200k"):
        python_pattern(r"\w+|\W")
    with pytest.raises(UsageError, match="split pattern"):
        tokenizer_json(byte_tokenizer(r"\p{N}{1,3}+|."))
    by_characters = LibraryTokenizer.from_json(llama2_like().to_str().encode(), "<s>")
    with pytest.raises(UsageError, match="The tokenizer normalizes text"):
        tokenizer_json(by_characters)
    other_order = smollm2_like()
    contents = json.loads(other_order.to_str())
    contents["model"]["merges"][0], contents["model"]["merges"][1] = contents["model"]["merges"][1::-1]
    with pytest.raises(UsageError, match=r"model.merges\[0\] is .*, but the order of the vocabulary requires"):
        tokenizer_json(LibraryTokenizer.from_json(json.dumps(contents).encode(), "<|endoftext|>"))
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(LICENSE.splitlines()), model_writer=model, vocab_size=400, minloglevel=2
    )
    with pytest.raises(UsageError, match=r"normalizes characters by a table of \d+ bytes"):
        tokenizer_json(SentencePieceTokenizer.from_model(model.getvalue()))


def test_the_folder_runs_anywhere_and_reports_errors(tmp_path):
    """In any folder, without this repository and with no site package but NumPy."""
    config = replace(FAMILIES["modern"], vocab_size=300, context_length=40)
    arrays = random_parameters(config)
    write_standalone(tmp_path / "out", config, arrays, bpe(), 'a "title" \\')
    shutil.move(tmp_path / "out", tmp_path / "moved here")
    call = lambda *words: subprocess.run(
        [sys.executable, "-W", "error", tmp_path / "moved here/model.py", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONIOENCODING": "utf-8"},
    )
    first, again, other = (
        call("The mill", "--tokens", "5", "--temperature", "2", "--seed", seed) for seed in ("1", "1", "2")
    )
    assert first.returncode == 0 and first.stdout.startswith("The mill"), first.stderr
    assert first.stdout == again.stdout != other.stdout
    assert call("The mill", "--tokens", "0").stdout == "The mill\n"
    refused = call("x " * 50)
    assert refused.returncode == 1 and "must have fewer than 40" in refused.stderr and "Traceback" not in refused.stderr
    assert {path.name for path in (tmp_path / "moved here").iterdir()} == {
        "model.py",
        "parameters.safetensors",
        "tokenizer.json",
        "README.md",
    }

"""A saved tokenizer is restored exactly, by us and by Hugging Face's library; changed folders are rejected."""

import functools
import json

import pytest
import tiktoken
import tiktoken.load
import tokenizers

from lm.config import TokenizerConfig
from lm.errors import InputError
from lm.tokenizer import load, save, train_bpe
from lm.tokenizer.patterns import SPLIT_PATTERNS
from tests.damage import flips
from tests.run_files import LICENSE

# One in 17 of all code points, each next to letters, digits, quotes, blanks and itself.
CODE_POINTS = [chr(c) for c in range(0, 0x110000, 17) if not 0xD800 <= c < 0xE000]
ODD = "".join(f"a{c}b {c}1'{c}\n{c}{c}" for c in CODE_POINTS)


@functools.cache
def make(pattern="cl100k"):
    return train_bpe([LICENSE], TokenizerConfig(600, pattern, 10**7))


def test_load_restores_a_saved_tokenizer(tmp_path):
    save(make(), tmp_path / "new" / "tokenizer")
    assert load(tmp_path / "new" / "tokenizer") == make()
    meta = json.loads((tmp_path / "new/tokenizer/meta.json").read_text())
    assert meta == {
        "kind": "bpe",
        "pattern": SPLIT_PATTERNS["cl100k"],
        "special_tokens": {"<|endoftext|>": 599},
        "start": "<|endoftext|>",
        "end": "<|endoftext|>",
        "vocab_size": 600,
        "documents": 1,
        "characters": len(LICENSE),
        "fingerprint": make().fingerprint,
    }


@pytest.mark.fast_rows
@pytest.mark.parametrize("pattern", SPLIT_PATTERNS)
def test_hugging_face_gives_the_same_ids(tmp_path, pattern):
    ours = make(pattern)
    save(ours, tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs.encode_special_tokens = True  # special names in a text are plain text, as in ours
    assert theirs.get_vocab_size() == 600
    assert theirs.token_to_id("<|endoftext|>") == ours.bos_id == 599
    for text in (LICENSE, ODD, "<|endoftext|> x", "", " ", "\r\n\r\n\t  I'LL don't 'ſ"):
        ids = ours.encode(text)
        assert theirs.encode(text).ids == ids
        assert theirs.decode(ids) == text


def test_tiktoken_reads_the_ranks(tmp_path):
    ours = make()
    save(ours, tmp_path)
    ranks = tiktoken.load.load_tiktoken_bpe(str(tmp_path / "tokenizer.tiktoken"))
    theirs = tiktoken.Encoding("x", pat_str=ours.pattern, mergeable_ranks=ranks, special_tokens={})
    assert theirs.encode(LICENSE) == ours.encode(LICENSE)


@pytest.mark.parametrize("name", ["meta.json", "tokenizer.tiktoken"])
def test_a_missing_file_is_named(tmp_path, name):
    save(make(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing.*launch.train_tokenizer"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("meta.json", "{", ""),
        ("meta.json", '"pattern"', '"patern"'),
        ("meta.json", '"bpe"', '"bpf"'),
        ("meta.json", '"<|endoftext|>"', '"<|other|>"'),
        ("meta.json", "599", "12"),
        ("tokenizer.tiktoken", " 300\n", " 301\n"),
        ("tokenizer.tiktoken", "AA== 0\n", ""),
        ("tokenizer.tiktoken", "AA== 0\n", "A 0\n"),
        ("tokenizer.tiktoken", "AA== 0\n", "é 0\n"),
    ],
)
def test_damage_is_an_input_error(tmp_path, name, old, new):
    save(make(), tmp_path)
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match="is damaged"):
        load(tmp_path)


def test_a_flipped_bit_in_the_ranks_is_found(tmp_path):
    save(make(), tmp_path)
    for _ in flips([tmp_path / "tokenizer.tiktoken"], 40):
        with pytest.raises(InputError):
            load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"), [("pattern", None), ("pattern", 5), ("documents", float("inf")), ("special_tokens", [[[]]])]
)
def test_a_meta_with_a_field_of_another_type_is_damaged(tmp_path, field, value):
    save(make(), tmp_path)
    meta = json.loads((tmp_path / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps(meta | {field: value}))
    with pytest.raises(InputError, match="is damaged"):
        load(tmp_path)

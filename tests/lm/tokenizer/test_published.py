"""Published vocabularies: ids equal tiktoken's and Hugging Face's on every text; unsupported files are rejected; a
missing file is named with the places to put it."""

import functools
import hashlib
import http.server
import inspect
import itertools
import json
import random
import resource
import shutil
import tarfile
from dataclasses import replace
from importlib.metadata import distributions

import pytest
import tiktoken
import tokenizers
from tiktoken_ext import openai_public

from lm.errors import InputError, UsageError
from lm.tokenizer import BytePairTokenizer, save
from lm.tokenizer.encoding import numbered, write_ranks
from lm.tokenizer.hugging_face.reading import read_hugging_face
from lm.tokenizer.hugging_face.writing import merged_from, write_hugging_face
from lm.tokenizer.patterns import SPLIT_PATTERNS
from lm.tokenizer.published import PUBLISHED, SERVER, Published, cached_at, load_published
from tests.lm.byte_tokenizer import byte_tokenizer
from tests.lm.tokenizer.test_files import ODD, make
from tests.loopback_server import listening, send
from tests.run_files import LICENSE, REPOSITORY

SHARED = REPOSITORY / "../shared/data"
OF_TIKTOKEN = {"gpt2": "r50k_base", "cl100k": "cl100k_base", "o200k": "o200k_base"}
ENDS = "<|endoftext|>"
SHORT_ODD = ODD[: len(ODD) // 40] + ODD[-500:]

needs_ranks = pytest.mark.skipif(not (SHARED / "vocab").is_dir(), reason="needs ../shared/data/vocab")
REAL = [pytest.param(name, marks=needs_ranks) for name in ("gpt2", "cl100k")]
real = pytest.mark.parametrize("name", REAL)


@functools.cache
def trained(pattern: str) -> BytePairTokenizer:
    """As read from a file: it does not know its number of documents and characters."""
    return replace(make(pattern), documents=0, characters=0)


@functools.cache
def with_foreign_tokens() -> BytePairTokenizer:
    """Like Llama 3's: some tokens are not reachable by merges."""
    ours = trained("cl100k")
    tokens = (*ours.tokens, b"xyzzy", b" xyzzy", b"quux", b".:.:")
    foreign = replace(ours, tokens=tokens, special_tokens=numbered(tokens, (ENDS,)))
    for token in tokens[-4:]:
        with pytest.raises(ValueError, match="is not a merge of two earlier tokens"):
            merged_from(token, foreign.ranks)
    return foreign


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Our cache and tiktoken's, with the ranks of ../shared."""
    folder = tmp_path_factory.mktemp("tiktoken")
    (folder / "gristmill/tokenizers").mkdir(parents=True)
    for path in (SHARED / "vocab").glob("*.tiktoken"):
        shutil.copy(path, folder / hashlib.sha1(f"{SERVER}/{path.name}".encode()).hexdigest())
        shutil.copy(path, folder / "gristmill/tokenizers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def both(cache):
    """{name: (ours, tiktoken's)}."""
    made = functools.partial(lambda name: tiktoken.Encoding(**getattr(openai_public, OF_TIKTOKEN[name])()))
    return functools.cache(lambda name: (load_published(name), made(name)))


# The table


@pytest.mark.parametrize("name", OF_TIKTOKEN)
def test_the_table_equals_tiktokens(name):
    source = inspect.getsource(getattr(openai_public, OF_TIKTOKEN[name]))
    published = PUBLISHED[name]
    assert f'"{SERVER}/{published.file}"' in source and f'"{published.sha256}"' in source
    assert source.count("ENDOF") + source.count("FIM_") - source.count("FIM_PREFIX: FIM") == len(
        published.special_tokens
    )
    for id in published.special_tokens.values():
        assert f": {id}" in source


def test_the_special_tokens_of_llama_3():
    assert {*PUBLISHED} == {*OF_TIKTOKEN, "llama3"}
    llama3 = PUBLISHED["llama3"].special_tokens
    assert (llama3["<|begin_of_text|>"], llama3["<|end_of_text|>"], llama3["<|eot_id|>"]) == (128_000, 128_001, 128_009)
    assert llama3["<|reserved_special_token_250|>"] == 128_255 and len(llama3) == 256


# Ids equal tiktoken's


@pytest.mark.parametrize("name", OF_TIKTOKEN)
def test_small_strings_with_small_vocabularies(monkeypatch, name):
    """tiktoken's patterns, which are written differently, split like ours."""
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *args, **kwargs: {})  # avoids a download
    pattern = getattr(openai_public, OF_TIKTOKEN[name])()["pat_str"]
    ours = trained(name)
    theirs = tiktoken.Encoding("theirs", pat_str=pattern, mergeable_ranks=ours.ranks, special_tokens={})
    for length in range(5):
        for letters in itertools.product("tS1 \n\r'\xa0/\u0301", repeat=length):
            text = "".join(letters)
            assert ours.encode(text) == theirs.encode_ordinary(text), repr(text)
    for text in (ODD, LICENSE, ODD[::-1]):
        assert ours.encode(text) == theirs.encode_ordinary(text)


@real
def test_odd_and_real_texts(both, name):
    ours, theirs = both(name)
    packages = [text for found in distributions() if (text := found.read_text("METADATA"))]
    assert len(packages) > 20
    assert (ours.vocab_size, dict(ours.special_tokens)) == (theirs.n_vocab, theirs._special_tokens)
    assert ours.bos_id == theirs.eot_token and ours.eos_ids == {theirs.eot_token}
    for text in (ODD, LICENSE, "a\ud800b", f"{ENDS} x", *packages):
        assert ours.encode(text) == theirs.encode_ordinary(text)


@pytest.mark.skipif(not (SHARED / "langid").is_dir(), reason="needs ../shared/data/langid")
@real
@pytest.mark.slow
def test_sentences_in_75_languages(both, name):
    ours, theirs = both(name)
    sentences = 0
    with tarfile.open(SHARED / "langid/sentences-75-languages.tar.xz") as archive:
        for member in archive:
            if (file := archive.extractfile(member)) is not None:
                lines = file.read().decode().splitlines()
                sentences += len(lines)
                assert ours.encode_batch(lines) == theirs.encode_ordinary_batch(lines, num_threads=1), member.name
    assert sentences > 74_000


# Hostile texts


def hostile_texts() -> dict[str, str]:
    source = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    code_points = (source.randrange(0x110000) for _ in range(260_000))
    return {
        "one letter": "a" * 200_000,
        "blanks": " " * 200_000,
        "random Unicode": "".join(chr(c) for c in code_points if not 0xD800 <= c < 0xE000),
        "no space": "".join(source.choices(letters + "0123456789.,-_/'", k=10**6)),
        "random letters": "".join(source.choices(letters, k=10**6)),
    }


@pytest.mark.fast_rows
@pytest.mark.parametrize("name", ["trained", *REAL])
def test_hostile_texts_round_trip_in_little_memory(request, name):
    ours = trained("cl100k") if name == "trained" else request.getfixturevalue("both")(name)[0]
    ours.encode("what is made at first use is made here")
    texts = hostile_texts()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind, text in texts.items():
        assert ours.decode(ours.encode(text)) == text, kind
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 300, f"{grown:.0f} MB for texts of 1 MB"


# Hugging Face's tokenizer.json


def hugging_face_of(tokenizer: BytePairTokenizer) -> tokenizers.Tokenizer:
    theirs = tokenizers.Tokenizer.from_str(write_hugging_face(tokenizer).decode())
    theirs.encode_special_tokens = True  # special names in a text are plain text, as in ours
    return theirs


@pytest.mark.slow
@real
def test_hugging_face_gives_the_same_ids(both, name):
    ours, _ = both(name)
    theirs = hugging_face_of(ours)
    for text in (ODD, LICENSE, f"{ENDS} x", "", "\r\n\r\n\t  I'LL don't 'ſ"):
        assert theirs.encode(text).ids == ours.encode(text)
    assert {special: theirs.token_to_id(special) for special in ours.special_tokens} == ours.special_tokens


@pytest.mark.fast_rows
@pytest.mark.parametrize("pattern", [*SPLIT_PATTERNS, r"[^\s]+| ?\s+"])
def test_exports_of_trained_tokenizers_are_read_back(pattern):
    assert read_hugging_face(write_hugging_face(trained(pattern))) == trained(pattern)


def test_special_tokens_with_gaps():
    gaps = replace(trained("gpt2"), special_tokens={"<|x|>": 700, ENDS: 601, "é ö": 640})
    theirs = hugging_face_of(gaps)
    assert {name: theirs.token_to_id(name) for name in gaps.special_tokens} == gaps.special_tokens
    assert theirs.encode(LICENSE).ids == gaps.encode(LICENSE)
    assert read_hugging_face(write_hugging_face(gaps)) == gaps


def test_tokens_unreachable_by_merges():
    ours = with_foreign_tokens()
    theirs = hugging_face_of(ours)
    assert ours.encode("xyzzy quux") != trained("cl100k").encode("xyzzy quux")
    for text in ("xyzzy xyzzy", "quux xxyzzy quuxx", ".:.:.:.:", SHORT_ODD, LICENSE):
        assert theirs.encode(text).ids == ours.encode(text)
    assert read_hugging_face(write_hugging_face(ours)) == ours


def test_tokens_in_any_order_have_the_same_ids_in_hugging_face():
    """Also if two merges make one token (a+aa and aa+a), or no merge makes it."""
    source = random.Random(0)
    for _ in range(150):
        tokens = [b"a", b"b"]
        for _ in range(8):
            token = source.choice(tokens) + source.choice(tokens)
            tokens += [token] if token not in tokens else []
        tokens = source.sample(tokens[2:], len(tokens) - 2)
        ours = byte_tokenizer(SPLIT_PATTERNS["cl100k"], *tokens)
        theirs = hugging_face_of(ours)
        for _ in range(40):
            text = "".join(source.choices("ab", k=source.randrange(30)))
            assert theirs.encode(text).ids == ours.encode(text), (tokens, text)


@functools.cache
def written() -> str:
    return write_hugging_face(trained("cl100k")).decode()


def changed(*path: str | int, to: object) -> bytes:
    """tokenizer.json with another value at `path`."""
    contents = json.loads(written())
    where = contents
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = to
    return json.dumps(contents).encode()


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": ENDS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {ENDS: {"id": ENDS, "ids": [599], "tokens": [ENDS]}},
}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["normalizer"], {"type": "NFC"}, 'normalizer is {"type": "NFC"}'),
        (["truncation"], {"max_length": 8}, "truncation is"),
        (["padding"], {"direction": "Right"}, "padding is"),
        (["pre_tokenizer"], None, "pre_tokenizer is null"),
        (["pre_tokenizer"], {"type": "Metaspace"}, 'pre_tokenizer is {"type": "Metaspace"}'),
        (["pre_tokenizer"], {**BYTE_LEVEL, "add_prefix_space": True}, "ByteLevel.add_prefix_space is true"),
        (["pre_tokenizer"], {**BYTE_LEVEL, "use_regex": False}, "ByteLevel.use_regex is false"),
        (["pre_tokenizer", "pretokenizers", 1, "use_regex"], True, "ByteLevel.use_regex is true"),
        (["pre_tokenizer", "pretokenizers", 0], {"type": "Digits"}, "pre_tokenizer is"),
        (["pre_tokenizer", "pretokenizers", 0, "behavior"], "MergedWithNext", "MergedWithNext"),
        (["pre_tokenizer", "pretokenizers", 0, "invert"], True, '"invert": true'),
        (["pre_tokenizer", "pretokenizers", 0, "pattern"], {"String": " "}, 'Split.pattern is {"String": " "}'),
        (["pre_tokenizer", "pretokenizers", 0, "pattern"], {"Regex": r"\d{1,3}+|."}, "Oniguruma"),
        (["pre_tokenizer", "pretokenizers", 0, "pattern"], {"Regex": r"\s+"}, "does not match"),
        (["model", "type"], "Unigram", 'model.type is "Unigram"'),
        (["model", "dropout"], 0.1, "model.dropout is 0.1"),
        (["model", "byte_fallback"], True, "model.byte_fallback is true"),
        (["model", "continuing_subword_prefix"], "##", 'model.continuing_subword_prefix is "##"'),
        (["model", "end_of_word_suffix"], "</w>", 'model.end_of_word_suffix is "</w>"'),
        (["model", "merges", 7], ["a", "b"], r"model.merges[7] is (b'a', b'b'), but"),
        (["model", "vocab", "中"], 599, "model.vocab"),
        (["model", "vocab", "zzzz"], 700, "599 is expected"),
        (["added_tokens", 0, "special"], False, "special is false"),
        (["added_tokens", 0, "lstrip"], True, "lstrip is true"),
        (["added_tokens", 0, "id"], 620, "id is 620: Hugging Face's library gives it 599"),
        (["added_tokens", 0, "content"], "<|x|>", "Give a folder"),
        (["post_processor"], {"type": "BertProcessing"}, "post_processor is"),
    ],
)
def test_files_that_would_give_other_ids_are_rejected(tmp_path, path, value, said):
    """As our BPE; the file is still loaded if Hugging Face's library can keep the ids."""
    data = changed(*path, to=value)
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(UsageError) as refused:
        read_hugging_face(data)
    assert said in str(refused.value)
    try:
        found = load_published(str(tmp_path / "tokenizer.json"))
    except InputError as error:
        assert str(tmp_path) in str(error)
        return
    theirs = tokenizers.Tokenizer.from_str(data.decode())
    theirs.no_truncation()
    theirs.encode_special_tokens = True
    ids = theirs.encode(LICENSE, add_special_tokens=False).ids
    assert found.kind == "hugging_face" and found.encode(LICENSE) == ids
    assert found.decode(ids).lstrip() == LICENSE.lstrip()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["pre_tokenizer", "pretokenizers", 1, "trim_offsets"], True),
        (["model", "unk_token"], ENDS),
        (["model", "ignore_merges"], True),
        (["model", "dropout"], 0.0),
        (["model", "continuing_subword_prefix"], ""),
        (["model", "vocab", ENDS], 599),
        (["post_processor"], BYTE_LEVEL),
        (["post_processor"], {"type": "Sequence", "processors": [BYTE_LEVEL, TEMPLATE]}),
        (["model", "merges"], [" ".join(pair) for pair in json.loads(written())["model"]["merges"]]),
    ],
)
def test_files_that_give_the_same_ids_are_read(path, value):
    data = changed(*path, to=value)
    assert read_hugging_face(data) == trained("cl100k")
    theirs = tokenizers.Tokenizer.from_str(data.decode())
    theirs.encode_special_tokens = True
    for text in (SHORT_ODD, LICENSE):
        assert theirs.encode(text, add_special_tokens=False).ids == trained("cl100k").encode(text)


def test_byte_level_without_a_split_splits_like_gpt2():
    ours = trained("gpt2")
    contents = json.loads(write_hugging_face(ours))
    contents["pre_tokenizer"] = BYTE_LEVEL
    theirs = tokenizers.Tokenizer.from_str(json.dumps(contents))
    assert read_hugging_face(json.dumps(contents).encode()) == ours
    for text in (SHORT_ODD, LICENSE):
        assert theirs.encode(text).ids == ours.encode(text)


# Search paths


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A vocabulary "small" in the table, a local server, and an environment with empty caches."""
    ranks = write_ranks(trained("gpt2").tokens)
    digest = hashlib.sha256(ranks).hexdigest()
    small = Published(SPLIT_PATTERNS["gpt2"], {ENDS: 599}, ENDS, ENDS, "small.tiktoken", digest)
    monkeypatch.setitem(PUBLISHED, "small", small)
    answers: dict[str, bytes] = {"/small.tiktoken": ranks}
    asked = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        body = answers.get(request.path)
        length = len(body or b"") + len(answers.get("more", b""))
        send(request, 404 if body is None else 200, {"Content-Length": str(length)}, body or b"")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with listening(answer) as address:
        yield lambda: load_published("small", address), answers, asked, cached_at("small")


def test_a_download_is_cached(served):
    load, answers, asked, place = served
    assert load() == load() == trained("gpt2")
    assert place.read_bytes() == answers["/small.tiktoken"] and asked == ["/small.tiktoken"]
    assert [path.name for path in place.parent.iterdir()] == ["small.tiktoken"]
    place.write_bytes(b"half of")
    assert load() == trained("gpt2") and len(asked) == 2 and place.read_bytes() == answers["/small.tiktoken"]


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({}, "404 Not Found"),
        pytest.param({"/small.tiktoken": b"<html>"}, f"has SHA-256 {hashlib.sha256(b'<html>').hexdigest()}", id="html"),
        ({"/small.tiktoken": b"IQ== 0\n", "more": bytes(5)}, "the connection ended too early"),
    ],
)
def test_a_failed_download_names_the_file_and_its_place(served, answers, problem):
    load, real_answers, _, place = served
    real_answers.clear()
    real_answers.update(answers)
    with pytest.raises(InputError) as failed:
        load()
    for part in (problem, "file small.tiktoken", PUBLISHED["small"].sha256, "http://127.0.0.1:", str(place)):
        assert part in str(failed.value)
    assert not place.exists()


def test_an_unwritable_cache_is_ignored(served, capsys):
    load, _, _, place = served
    place.parent.parent.parent.mkdir()
    place.parent.parent.write_text("a file where a folder should be")
    assert load() == trained("gpt2")
    assert "could not be kept" in capsys.readouterr().out


def test_llama3_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"original/tokenizer\.model .*request.*tokenizers/llama3\.model") as missing:
        load_published("llama3")
    assert PUBLISHED["llama3"].sha256 in str(missing.value)


# Paths


@needs_ranks
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_published_ranks_are_recognized(tmp_path, line_end):
    data = (SHARED / "vocab/r50k_base.tiktoken").read_bytes().replace(b"\n", line_end)
    for name in ("mine.tiktoken", "tokenizer.model"):
        (tmp_path / name).write_bytes(data)
        assert load_published(str(tmp_path / name)).encode("hello world") == [31373, 995]
    assert load_published(str(tmp_path)).vocab_size == 50_257


def test_custom_ranks_are_loaded_as_a_folder(tmp_path):
    save(trained("o200k"), tmp_path)
    assert load_published(str(tmp_path)) == trained("o200k")
    assert load_published(str(tmp_path / "tokenizer.json")) == trained("o200k")
    with pytest.raises(UsageError, match=r"none of gpt2, cl100k, .* folder with meta.json"):
        load_published(str(tmp_path / "tokenizer.tiktoken"))


def test_hugging_face_folders_name_bos_and_eos(tmp_path):
    ours = with_foreign_tokens()
    special = numbered(ours.tokens, ("<s>", "<|end|>", "</s>"))
    (tmp_path / "tokenizer.json").write_bytes(
        write_hugging_face(replace(ours, start="<s>", end="</s>", special_tokens=special))
    )

    def load() -> tuple[str, str]:
        tokenizer = load_published(str(tmp_path))
        assert isinstance(tokenizer, BytePairTokenizer)
        return tokenizer.start, tokenizer.end

    assert load() == ("<s>", "</s>")
    for config, names in (
        ({"bos_token": "<s>", "eos_token": {"content": "<|end|>", "lstrip": False}}, ("<s>", "<|end|>")),
        ({"bos_token": None, "eos_token": "<|end|>"}, ("<|end|>", "<|end|>")),
        ({"bos_token": "<s>"}, ("<s>", "</s>")),
        ({}, ("<s>", "</s>")),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        assert load() == names
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    with pytest.raises(UsageError, match=r"'<eos>' should begin or end documents, but added_tokens has <s>, <\|end\|>"):
        load()


def test_a_missing_path_is_reported(tmp_path):
    with pytest.raises(
        UsageError, match="'gpt3', which is neither a file or folder nor one of gpt2, cl100k, o200k, ll"
    ):
        load_published("gpt3")
    with pytest.raises(UsageError, match=r"has none of meta\.json, tokenizer\.json and tokenizer\.model"):
        load_published(str(tmp_path))


@pytest.mark.parametrize(
    "data", [b"{", b"{}", b'{"pre_tokenizer": 7}', b"AA== 0\nAQ== 2\n", b"AA== 0\nA\n", b'{"a": "\xff"}']
)
def test_damage_is_named(tmp_path, data):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(InputError, match=r"tokenizer\.json (is damaged|cannot be loaded)"):
        load_published(str(tmp_path / "tokenizer.json"))


def test_a_damaged_tokenizer_json_is_an_input_error(tmp_path):
    """Truncated or changed anywhere: never a traceback."""
    source, path = random.Random(0), tmp_path / "tokenizer.json"
    contents, compared = json.loads(written()), 0
    for _ in range(150):
        copy = json.loads(written())
        where = copy
        while isinstance(where, (dict, list)) and where:
            key = source.choice(sorted(where)) if isinstance(where, dict) else source.randrange(len(where))
            if source.random() < 0.4 or not isinstance(where[key], (dict, list)) or not where[key]:
                where[key] = source.choice([None, 7, "x", [], {}, ["a"], {"type": "x"}, -1, 1.5, True])
                break
            where = where[key]
        path.write_text(json.dumps(copy))
        try:
            loaded = load_published(str(path))
        except InputError:
            continue
        try:
            theirs = tokenizers.Tokenizer.from_file(str(path))
        except Exception:  # of that type; it is stricter about irrelevant fields
            continue
        compared += 1
        theirs.encode_special_tokens = True
        assert loaded.encode(LICENSE) == theirs.encode(LICENSE, add_special_tokens=False).ids, copy == contents
    assert compared > 10

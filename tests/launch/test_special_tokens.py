"""BOS, EOS and chat template of an imported model survive import and export in any format and with any tokenizer."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
from tokenizers import Tokenizer as Library

from configs.experiment.run_folder import RunFolder
from launch.export import export
from launch.import_model import Command, open_source, run
from launch.release.imported import with_tried_template, write_run
from lm.config import TokenizerConfig
from lm.errors import InputError
from lm.evaluation.log_likelihood import encode_pair
from lm.formats.hugging_face.tokenizer_files import write_tokenizer
from lm.formats.source import SpecialTokens
from lm.inference.requests import check_prompt
from lm.tokenizer import save, train_tokenizer
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from tests.launch.test_release import source_of
from tests.lm.model_configs import LLAMA
from tests.lm.tokenizer.test_hugging_face_library import lacking_bytes

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}é"
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
BOS, EOS, EXTRA = 1, 2, 5
"""Ids of <|im_start|>, <|im_end|> and another special token; by default the vocabulary would use 0 for all of them."""


@pytest.fixture(scope="module", params=["hugging_face", "gguf"])
def source(request, tmp_path_factory):
    """A published model's files: a vocabulary that lacks bytes, no BOS before a text, two EOS ids."""
    place = tmp_path_factory.mktemp(request.param)
    plain = LibraryTokenizer.from_json(lacking_bytes(), "<|endoftext|>")
    special = SpecialTokens(BOS, (EOS, EXTRA), False, TEMPLATE)
    tokenizer, (note,) = special.on(plain)
    assert note.startswith("the vocabulary has no token for 21")
    out = place / ("m.gguf" if request.param == "gguf" else "m")
    config = dataclasses.replace(LLAMA, vocab_size=plain.vocab_size)
    write_run(source_of(config, tokenizer), place / "run", "numbers")
    export(RunFolder(place / "run").open_to_publish(), out, request.param)
    return out


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["its own tokenizer", "--tokenizer"])
def imported(request, source, tmp_path, capsys):
    """(the run, the output of the import)."""
    named = tmp_path / "tokenizer.json"
    named.write_bytes(lacking_bytes())  # the same vocabulary, without BOS and EOS
    run(Command(str(source), str(tmp_path / "run"), str(named) if request.param else ""))
    return RunFolder(tmp_path / "run").open_to_publish(), capsys.readouterr().out


@pytest.mark.fast_rows
def test_special_tokens_are_in_the_run_and_in_every_export(imported, tmp_path):
    stored, said = imported
    assert "no token for 21 of the 256 bytes (0x04, 0x06, 0x13, " in said
    tokenizer = stored.tokenizer
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.add_bos) == (BOS, {EOS, EXTRA}, False)
    assert tokenizer.chat_template == TEMPLATE
    for name in ("hugging_face", "gguf", "standalone"):
        export(stored, tmp_path / f"out.{name}", name)
    folder = tmp_path / "out.hugging_face"
    for name in ("config.json", "generation_config.json"):
        found = json.loads((folder / name).read_bytes())
        assert (found["bos_token_id"], found["eos_token_id"]) == (BOS, [EOS, EXTRA])
    found = json.loads((folder / "tokenizer_config.json").read_bytes())
    assert (found["bos_token"], found["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert found["chat_template"] == TEMPLATE
    text = "The mill, 12 sacks."
    assert Library.from_file(str(folder / "tokenizer.json")).encode(text).ids == tokenizer.encode(text)
    fields = gguf.GGUFReader(tmp_path / "out.gguf").fields
    of = lambda name: fields[f"tokenizer.{name}"].contents()
    assert [of(f"ggml.{name}_token_id") for name in ("bos", "eos", "eot")] == [BOS, EOS, EXTRA]
    assert of("chat_template") == TEMPLATE and of("ggml.add_bos_token") is False
    found = json.loads((tmp_path / "out.standalone/tokenizer.json").read_bytes())
    assert (found["begin"], found["ends"]) == (BOS, [EOS, EXTRA])
    for name in ("out.hugging_face", "out.gguf"):
        write_run(open_source(tmp_path / name, None), tmp_path / f"run.{name}", "again")
        again = RunFolder(tmp_path / f"run.{name}").open_to_publish().tokenizer
        assert isinstance(again, LibraryTokenizer) and isinstance(tokenizer, LibraryTokenizer)
        assert again == dataclasses.replace(tokenizer, contents=again.contents)
        assert again.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for %}", "not valid Jinja"), ("{% include 'a' %}", "uses include, which is refused"),
        ("{{ 'a' * 9999999 * 9999999 }}", "too large"), (ENDLESS, "too many steps"),
        ("{% if messages|length > 2 %}" + ENDLESS + "{% endif %}", "too many steps"),
        (TEMPLATE, ""), ("{{ raise_exception('no') }}", ""), ("{{ messages.nothing.at_all }}", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_left_out(template, reason):
    plain = LibraryTokenizer.from_json(lacking_bytes(), "<|endoftext|>")
    config = dataclasses.replace(LLAMA, vocab_size=plain.vocab_size)
    source = with_tried_template(source_of(config, dataclasses.replace(plain, chat_template=template)))
    assert source.tokenizer == dataclasses.replace(plain, chat_template="" if reason else template)
    assert len(source.notes) == (reason != "") and all(reason in note for note in source.notes)


def test_a_model_is_imported_without_a_template_that_cannot_be_used(source, tmp_path, capsys):
    if source.is_dir():
        (source / "chat_template.jinja").write_text(ENDLESS)
        run(Command(str(source), str(tmp_path / "run")))
        (source / "chat_template.jinja").unlink()
        assert not RunFolder(tmp_path / "run").open_to_publish().tokenizer.chat_template
        said = [line for line in capsys.readouterr().out.splitlines() if "chat template" in line]
        assert len(said) == 1 and "takes too many steps" in said[0] and "imported without it" in said[0]


@pytest.mark.fast_rows
def test_a_prompt_begins_with_the_prefix_of_the_sources_tokenizer(imported, tmp_path):
    stored, _ = imported
    ids = stored.tokenizer.encode("a mill")
    assert check_prompt(stored.tokenizer, "a mill", 16) == ids and check_prompt(stored.tokenizer, "", 16) == [BOS]
    assert encode_pair(stored.tokenizer, "a", " mill").context == stored.tokenizer.encode("a")
    assert encode_pair(stored.tokenizer, "", "mill").context == [BOS]
    export(stored, tmp_path / "out", "standalone")
    record = json.loads((tmp_path / "out/gristmill_export.json").read_text())
    assert {*record["files"]} == {"model.py", "parameters.safetensors", "tokenizer.json", "README.md"}
    program = "import json, model; t = model.Tokenizer(model.FOLDER / 'tokenizer.json'); print(t.encode('a mill'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "out", capture_output=True, text=True)
    assert json.loads(done.stdout) == ids, done.stderr
    asked = [sys.executable, "model.py", "--tokens", "1"]
    done = subprocess.run([*asked, "a \x1d"], cwd=tmp_path / "out", capture_output=True, text=True)
    assert done.returncode == 1 and "The vocabulary has no token for the byte 1d." in done.stderr
    for headed in (True, False):
        write_tokenizer(tmp_path, dataclasses.replace(stored.tokenizer, add_bos=headed), 16)
        library = Library.from_file(str(tmp_path / "tokenizer.json"))
        assert library.encode("a mill").ids == [BOS] * headed + ids


def test_ids_that_a_given_tokenizer_lacks_are_named(source, tmp_path, capsys):
    """Another vocabulary keeps its own BOS and EOS, with a message."""
    save(train_tokenizer(["the mill " * 40], TokenizerConfig(262, "gpt2", 1000)), tmp_path / "t")
    run(Command(str(source), str(tmp_path / "run"), str(tmp_path / "t")))
    said = capsys.readouterr().out
    assert (
        "BOS is 1 in the source, which is not BOS in the tokenizer: its own ids, BOS 261 and EOS 261, are used" in said
    )
    assert RunFolder(tmp_path / "run").open_to_publish().tokenizer.chat_template == TEMPLATE


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer_config.json": {"chat_template": "x" * 262_145}}, "262,145 characters; the limit"),
        ({"tokenizer_config.json": {"chat_template": {"a": 1}}}, "the chat template is dict and must be text"),
        ({"generation_config.json": {"eos_token_id": "</s>"}}, "eos_token_id is \\['</s>'\\]"),
    ],
)  # fmt: skip
def test_invalid_ids_and_templates_are_rejected(source, tmp_path, changes, said):
    if source.suffix == ".gguf":
        pytest.skip("the fields of a GGUF file have types, which its reader checks")
    folder = Path(shutil.copytree(source, tmp_path / "source"))
    for name, more in changes.items():
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | more))
    with pytest.raises(InputError, match=said):
        open_source(folder, None)
    (folder / "chat_template.jinja").write_bytes(b"\xff" if "tokenizer_config.json" in changes else b"x" * 2**21)
    with pytest.raises(InputError, match=r"chat_template.jinja (is not UTF-8|has 2,097,152 bytes)"):
        open_source(folder, None)

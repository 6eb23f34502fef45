"""Folders of own texts: links out of them stop the command, deep ones too, and no name controls the terminal."""

import json
import os
import re
from pathlib import Path

import pytest

from data_prep.config import PagesConfig
from data_prep.sources import fetch_pages
from data_prep.sources.listing import files_below
from data_prep.sources.sizes import input_sizes
from lm.errors import UsageError
from tests.commands import run_command

EVIL = "\x1b]0;owned\x07\x1b[2J"


def names(run: Path, *patterns: object, **changes) -> list[str]:
    config = PagesConfig(tables=tuple(map(str, patterns)), **changes)
    return [one["name"] for one in fetch_pages(config, run)["files"]]


@pytest.fixture
def notes(tmp_path) -> Path:
    """A folder with a text, a link to it, and a folder in it; next to it, texts of another user."""
    (tmp_path / "notes/deep").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    for name in ("notes/a.txt", "notes/deep/b.txt", "other/secret.txt"):
        (tmp_path / name).write_text("A text.")
    (tmp_path / "notes/c.txt").symlink_to("a.txt")
    return tmp_path / "notes"


@pytest.mark.parametrize("target", ["../other/secret.txt", "/etc/hostname", "../other", "../none.txt", "../notes-2"])
@pytest.mark.parametrize("link", ["x.txt", "deep/x.txt"])
@pytest.mark.parametrize("form", ["{}", "{}/**/*.txt", "{}/deep/.."])
def test_a_link_that_leads_out_of_the_folder_stops_the_command(notes, tmp_path, target, link, form):
    path = notes / link
    path.symlink_to("../" * link.count("/") + target if target[0] != "/" else target)
    if "*" in form and not path.is_file():
        return
    for read in (lambda *given: names(tmp_path / "run", *given), lambda one: input_sizes(PagesConfig(tables=(one,)))):
        with pytest.raises(UsageError, match=r"pages\.tables: .*x\.txt.* is a link to '.*, outside of .*follow-links"):
            read(form.format(notes))


def test_links_inside_of_the_folder_and_links_to_it_are_read(notes, tmp_path):
    (tmp_path / "linked").symlink_to("notes")
    assert names(tmp_path / "run", tmp_path / "linked") == ["a.txt", "c.txt", "deep/b.txt"]
    assert names(tmp_path / "run2", tmp_path / "linked/*.txt") == ["a.txt", "c.txt"]


def test_snapshots_of_links_are_read_if_requested(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots/main/data").mkdir(parents=True)
    (tmp_path / "blobs/0123").write_text(json.dumps({"text": "A text."}))
    (tmp_path / "snapshots/main/a.jsonl").symlink_to("../../blobs/0123")
    (tmp_path / "snapshots/main/data/all").symlink_to("../..")  # a circle
    (tmp_path / "snapshots/main/data/b.jsonl").symlink_to("../../../blobs/0123")
    main = tmp_path / "snapshots/main"
    with pytest.raises(UsageError, match="follow-links"):
        names(tmp_path / "run", main)
    found = names(tmp_path / "run", main, follow_links=True)
    assert {"a.jsonl", "data/b.jsonl"} <= set(found) and len(found) < 9


def test_400_nested_folders_are_a_clear_error(tmp_path):
    path = os.open(tmp_path, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("a-folder-name", dir_fd=path)
        deeper = os.open("a-folder-name", os.O_RDONLY, dir_fd=path)
        os.close(path)
        path = deeper
    os.close(path)
    for read in (lambda: names(tmp_path / "run", tmp_path), lambda: files_below("pages.tables", tmp_path, True)):
        with pytest.raises(UsageError, match=r"pages\.tables: .* of 4,\d\d\d characters, in .* name too long") as error:
            read()
        assert len(str(error.value)) < 1000


def test_names_and_addresses_never_control_the_terminal(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    url = f"http://a.example/{EVIL}"
    rows = [{"text": f"A text, number {n}.", "url": url, "id": f"{EVIL}{n}", "date": EVIL} for n in range(20)]
    (folder / f"good{EVIL}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / f"bad{EVIL}.jsonl").write_text(f'{{"{EVIL}":\n')
    (folder / f"skipped{EVIL}.doc").touch()
    (folder / f"empty{EVIL}.txt").touch()
    (folder / f"latin{EVIL}.txt").write_bytes(b"caf\xe9")
    words = ["configs/own_text.py", "--pages.tables", folder, "--workdir", tmp_path / "run", "--until", "documents"]
    done = run_command("launch.pretrain", *words, "--engine.max-failed", "0.9")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    for name in ("skipped", "empty", "latin", "bad", "cannot be read, such as"):
        assert name in said, said
    (folder / f"new{EVIL}.txt").write_text("A text.")
    said += run_command("launch.pretrain", *words, "--engine.max-failed", "0.9").stdout
    (folder / "link.txt").symlink_to(f"/etc/{EVIL}")
    refused = run_command("launch.pretrain", *words[:3], "--workdir", tmp_path / "other", "--until", "documents")
    assert refused.returncode == 2 and "link.txt" in refused.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", said + refused.stdout + refused.stderr)

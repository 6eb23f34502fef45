"""Pages with their main text for fitting: three public collections, each cloned at one commit.

wcxb, CC BY 4.0: seven kinds of pages with main text labeled by people. readability, Apache-2.0: expected.html, checked
by its maintainers. trafilatura, Apache-2.0: phrases that must or must not occur; the rest of a page is labeled by the
output of trafilatura.
"""

import gzip
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from data_prep.config import ExtractConfig
from data_prep.extract.blocks import read_blocks
from data_prep.extract.charset import decode
from lm.errors import InputError

UNLIMITED = ExtractConfig(
    engine="gristmill",
    min_probability=0.5,
    favor_precision=True,
    include_tables=True,
    max_bytes=100_000_000,
    max_depth=10_000,
    max_elements=1_000_000,
    max_attributes=10_000,
)
CANONICAL = re.compile(r'<link rel="canonical" href="([^"]*)')


@dataclass(frozen=True)
class Source:
    """A repository at a commit."""

    url: str
    commit: str
    """All 40 digits."""
    folder: str
    """Folder of the pages in the repository."""


SOURCES = {
    "wcxb": Source(
        "https://github.com/Murrough-Foley/web-content-extraction-benchmark",
        "c039d5ee9f5a3a984a0e167e63aacd04e76e78a9",
        ".",
    ),
    "trafilatura": Source("https://github.com/adbar/trafilatura", "e90b0ef51ab026fdb905fb6c5b3c84dd3d784fd5", "tests"),
    "readability": Source(
        "https://github.com/mozilla/readability", "ab4027a8b37669745016869a37a504727992b2ba", "test/test-pages"
    ),
}


def git(*arguments: str) -> str:
    """Return the output of git. Raises InputError with its message if it fails."""
    try:
        done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise InputError("The pages to fit to are cloned by git, which is not installed.") from error
    except subprocess.CalledProcessError as error:
        raise InputError(f"git {' '.join(arguments)} failed: {error.stderr.strip()}") from error
    return done.stdout.strip()


def pages_at(checkouts: Path, name: str) -> Path:
    """Return the folder of the pages of SOURCES[name]. Clones the repository to checkouts/name if it is missing.

    Raises InputError if it is at another commit or modified.
    """
    source, clone = SOURCES[name], checkouts / name
    if not clone.exists():
        checkouts.mkdir(parents=True, exist_ok=True)
        git("clone", "--quiet", "--no-checkout", source.url, str(clone))
        git("-C", str(clone), "checkout", "--quiet", source.commit)
    commit = git("-C", str(clone), "rev-parse", "HEAD")
    if commit != source.commit:
        raise InputError(
            f"{clone} is at commit {commit}, the trees are fitted to {source.commit}. "
            f"Bring it there: git -C {clone} checkout {source.commit}"
        )
    if changed := git("-C", str(clone), "status", "--porcelain", "--", source.folder):
        raise InputError(
            f"{clone} differs from its commit: {changed.splitlines()[0].strip()}. Delete it, and run the command again."
        )
    return clone / source.folder


@dataclass(frozen=True)
class MarkedPage:
    """A page and the labels of its main text."""

    url: str
    html: str
    text: str
    kind: str
    """The kind of page ("article", "forum", …), or the collection's name."""
    wanted: tuple[str, ...] = ()
    """Phrases of the main text."""
    unwanted: tuple[str, ...] = ()
    """Phrases outside of the main text."""


def read_wcxb(folder: Path, split: str = "dev") -> Iterator[MarkedPage]:
    """`folder` has metadata.json, dev/ and test/. A page of dev/ whose text is also in test/ counts as test."""
    files = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))["files"]
    held_out = {text for _, _, text in wcxb_truths(folder / "test")}
    for part in ("dev", "test"):
        for name, content, text in wcxb_truths(folder / part):
            html = folder / part / "html" / f"{name}.html.gz"
            if text and html.exists() and (text in held_out) == (split == "test"):
                url = content.get("url") or f"http://{files[name]['domain']}/"
                yield MarkedPage(url, decode(gzip.decompress(html.read_bytes()), ""), text, files[name]["page_type"])


def wcxb_truths(folder: Path) -> Iterator[tuple[str, dict, str | None]]:
    """(name, the file's content, main text) of each page of a split."""
    for path in sorted((folder / "ground-truth").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        yield path.stem, content, content["ground_truth"].get("main_content")


def read_readability(folder: Path) -> Iterator[MarkedPage]:
    """`folder` has one folder per page, with source.html and expected.html."""
    for source in sorted(folder.glob("*/source.html")):
        html = decode(source.read_bytes(), "")
        expected = decode(source.with_name("expected.html").read_bytes(), "")
        address = CANONICAL.search(html)
        text = "\n".join(read_blocks(expected, UNLIMITED).texts)
        yield MarkedPage(address[1] if address else source.parent.name, html, text, "readability")


def read_trafilatura(folder: Path) -> Iterator[MarkedPage]:
    """`folder` has evaldata.json, eval/ and cache/."""
    from trafilatura import extract

    for url, about in json.loads((folder / "evaldata.json").read_text(encoding="utf-8")).items():
        file = next(
            (f for f in (folder / "eval" / about["file"], folder / "cache" / about["file"]) if f.exists()), None
        )
        if not file:
            continue
        html = decode(file.read_bytes(), "")
        text = extract(html, favor_precision=True, include_comments=False, deduplicate=False)
        if text:
            wanted, unwanted = tuple(about.get("with") or ()), tuple(about.get("without") or ())
            yield MarkedPage(url, html, text, "trafilatura", wanted, unwanted)


READERS = {"wcxb": read_wcxb, "trafilatura": read_trafilatura, "readability": read_readability}


def site_of(url: str) -> str:
    return urlsplit(url).netloc.removeprefix("www.")

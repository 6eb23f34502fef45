"""Pages with their main text, for fitting: three public collections, read from a checkout of their repositories.

wcxb: Murrough-Foley/web-content-extraction-benchmark at c039d5e, CC BY 4.0: seven kinds of page, main text marked by
people. readability: mozilla/readability at ab4027a, test/test-pages, Apache-2.0: expected.html, checked by its
maintainers. trafilatura: adbar/trafilatura at e90b0ef, tests, Apache-2.0: phrases that must and that must not be there;
for the rest of a page the text that trafilatura finds.
"""

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from data_prep.config import ExtractConfig
from data_prep.extract.blocks import read_blocks
from data_prep.extract.charset import decode

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
class MarkedPage:
    """A page and what is known of its main text."""

    url: str
    html: str
    text: str
    kind: str
    """The kind of page ("article", "forum", …), or the collection's name."""
    wanted: tuple[str, ...] = ()
    """Phrases of the main text."""
    unwanted: tuple[str, ...] = ()
    """Phrases that are not of the main text."""


def read_wcxb(folder: Path, split: str = "dev") -> Iterator[MarkedPage]:
    """`folder` holds metadata.json, dev/ and test/. A page of dev/ whose text is in test/ too counts to test/."""
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
    """`folder` holds one folder a page, with source.html and expected.html."""
    for source in sorted(folder.glob("*/source.html")):
        html = decode(source.read_bytes(), "")
        expected = decode(source.with_name("expected.html").read_bytes(), "")
        address = CANONICAL.search(html)
        text = "\n".join(read_blocks(expected, UNLIMITED).texts)
        yield MarkedPage(address[1] if address else source.parent.name, html, text, "readability")


def read_trafilatura(folder: Path) -> Iterator[MarkedPage]:
    """`folder` holds evaldata.json, eval/ and cache/."""
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

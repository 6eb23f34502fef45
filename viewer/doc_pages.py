"""README.md and docs/ as pages of the server, so that the window can link to them offline."""

import itertools
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
STYLE = (ROOT / "viewer/static/style.css").read_text(encoding="utf-8")
DOC_STYLE = """
body { overflow-wrap: anywhere; max-width: 46rem; margin: 0 auto; padding: 1rem clamp(1.125rem, 4vw, 3rem) 4rem; }
pre { overflow-x: auto; } img { max-width: 100%; } table { display: block; overflow-x: auto; }
"""


def doc_files() -> dict[str, Path]:
    """Return {path on the server: file} of README.md, and of pages and images in docs/. The paths are those that links
    in the pages have."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md"]
    found += [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".md", ".png")]
    return {f"/{path.relative_to(ROOT)}": path for path in sorted(found) if path.is_file()}


def doc_html(path: Path) -> tuple[str, str]:
    """Return (HTML of a Markdown file, content security policy for it). Headings have the same anchors as on GitHub."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(path.read_text(encoding="utf-8"))
    for heading, inline in itertools.pairwise(tokens):
        if heading.type == "heading_open":
            heading.attrSet("id", re.sub(r"[^\w\- ]", "", inline.content.lower()).replace(" ", "-"))
    body = parser.renderer.render(tokens, parser.options, {})
    html = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        f'initial-scale=1"><meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{path.stem}</title><style>{STYLE + DOC_STYLE}</style></head><body><main>{body}</main></body></html>"
    )
    return html, "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:"

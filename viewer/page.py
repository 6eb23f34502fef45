"""HTML of the window: one file with its scripts. The served page queries the server; an exported page, such as a run's
report, contains its answers."""

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np
from starlette.responses import RedirectResponse, Response

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


def key_of(name: str, fields: Mapping[str, object]) -> str:
    """Key of an answer in an exported page: name, and fields as JSON, such as batch{"step":1}; as in source.js."""
    given = {field: value for field, value in fields.items() if value is not None}
    return name + json.dumps(given, sort_keys=True, separators=(",", ":"))


def packed(array: np.ndarray) -> dict[str, object]:
    """Encode an array for toArray of dom.js: {"type", "shape", "data": int32 or float32, little-endian, in base64}."""
    kind = "int32" if array.dtype.kind in "iu" else "float32"
    data = np.ascontiguousarray(array, f"<{kind[0]}4").tobytes()
    return {"type": kind, "shape": list(array.shape), "data": base64.b64encode(data).decode("ascii")}


STATIC = Path(__file__).parent / "static"
SCRIPTS = (
    "dom", "source", "colours", "frame", "strip", "chart", "bpe_pattern", "bpe", "tokens_text", "predict_text",
    "data", "data_documents", "data_batches", "report", "tokens_merges", "tokens_vocabulary", "tokens",
    "predict_sampling", "predict_bars", "predict_tree", "predict", "inside_tree", "inside_drawing", "inside_attention",
    "inside_lens", "inside", "training_watch", "training_compare", "training", "trace_parts", "trace_contamination",
    "trace", "scaling", "chat", "start",
)  # fmt: skip
"""Files of static/, in the order in which they run; they share one scope."""
STYLES = ("style", "window", "report", "tokens", "predict", "inside", "training", "data", "trace", "chat")


def read_static(names: Sequence[str], suffix: str) -> str:
    return "\n".join((STATIC / f"{name}.{suffix}").read_text(encoding="utf-8") for name in names)


def sha256_source(text: str) -> str:
    """Hash of an inline script or style, as a source in a content security policy: 'sha256-...'."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def window_html(recorded: Mapping[str, object] | None = None, pages: Sequence[str] = ()) -> str:
    """Return the HTML of the served page or, if `recorded` is given, of an exported page, which contacts no server.
    `recorded` are the answers that it needs, {key: answer}, from inspections.record. An exported page shows only these
    `pages`; default: all but "scaling"."""
    script = f'"use strict";\n(() => {{\n{read_static(SCRIPTS, "js")}\n}})();\n'
    style = read_static(STYLES, "css")
    answers = ""
    if recorded is not None:
        only = {"pages": pages} if pages else {}
        # No text in it can close the element.
        data = json.dumps({**recorded, **only}, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        answers = f'<script type="application/json" id="recorded">{data}</script>'
    policy = (
        f"default-src 'none'; script-src {sha256_source(script)}; style-src {sha256_source(style)}; "
        f"img-src data:; connect-src {'self' if recorded is None else 'none'!r}; base-uri 'none'; form-action 'none'"
    )
    template = Template((STATIC / "window.html").read_text(encoding="utf-8"))
    return template.substitute(policy=policy, style=style, script=script, recorded=answers)


HEADERS = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def served_pages() -> dict[str, Callable[[], Response]]:
    """Return {path: function that makes the response}: the window, README.md and docs/."""
    html = window_html()

    def page(content: str | bytes, policy: str, media_type: str = "text/html; charset=utf-8") -> Response:
        headers = HEADERS | {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"}
        return Response(content, headers=headers, media_type=media_type)

    pages = {
        "/": lambda: RedirectResponse("/window"),
        "/window": lambda: page(html, "base-uri 'none'"),
    }
    for address, path in doc_files().items():
        if path.suffix == ".md":
            pages[address] = lambda path=path: page(*doc_html(path))
        else:
            pages[address] = lambda path=path: page(path.read_bytes(), "default-src 'none'", f"image/{path.suffix[1:]}")
    return pages

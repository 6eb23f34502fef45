"""The window's HTML: one file with its scripts in it. The served page asks the server, the exported one holds its
answers."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.responses import RedirectResponse, Response

from viewer.templates import STYLE, fill

HERE = Path(__file__).parent
PAGES = (
    ("bpe_pattern", "bpe", "tokens_text", "tokens_merges", "tokens"),
    ("predict_sampling", "predict_bars", "predict_tree", "predict_text", "predict"),
    ("inside_tree", "inside_drawing", "inside_attention", "inside_lens", "inside"),
    ("training_chart", "training_watch", "training_compare", "training"),
    ("data", "data_documents", "data_batches"),
    ("trace_parts", "trace_contamination", "trace"),
)
"""Scripts of each page, in the order in which the pages stand; the last of each has its name, and maybe styles."""
SCRIPTS = ("dom", "source", "colours", "frame", "strip", *(name for page in PAGES for name in page), "start")
"""Files of static/, in the order in which they are run; they share one scope."""
STYLES = (
    "window",
    "tokens",
    "predict",
    "inside",
    "training",
    "data",
    "trace",
)


def joined(names: tuple[str, ...], suffix: str) -> str:
    return "\n".join((HERE / "static" / f"{name}.{suffix}").read_text(encoding="utf-8") for name in names)


def sha256_source(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def window_html(recorded: Mapping[str, object] | None = None, name: str = "", back: str = "") -> str:
    """The page: with `recorded`, {key: answer} of inspections.record, the exported one, which asks nobody; `name` is
    then the run's, `back` the address of its report."""
    script = f'"use strict";\n(() => {{\n{joined(SCRIPTS, "js")}\n}})();\n'
    style = joined(STYLES, "css")
    policy = (
        f"default-src 'none'; script-src {sha256_source(script)}; style-src {sha256_source(STYLE + style)}; "
        f"img-src data:; connect-src {'none' if recorded else 'self'!r}; base-uri 'none'; form-action 'none'"
    )
    return fill(
        HERE / "window.html", style, script, policy=policy, name=name, back=back,
        recorded=script_json(recorded) if recorded is not None else "",
    )  # fmt: skip


def script_json(value: object) -> str:
    """JSON that ends no <script>, whatever texts are in it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def served_pages() -> dict[str, Callable[[], Response]]:
    """{path: what answers it}."""
    html = window_html()
    headers = {
        "Cache-Control": "no-cache", "Content-Security-Policy": "frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    }  # fmt: skip
    return {
        "/": lambda: RedirectResponse("/window"),
        "/window": lambda: Response(html, headers=headers, media_type="text/html; charset=utf-8"),
    }

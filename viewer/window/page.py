"""HTML of the window: one file with its scripts. The served page queries the server, the exported one contains its
answers."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.responses import RedirectResponse, Response

from lm.run_paths import RunPaths
from viewer.doc_pages import doc_files, doc_html
from viewer.templates import STYLE, fill

HERE = Path(__file__).parent
PAGES = (
    ("overview",),
    ("bpe_pattern", "bpe", "tokens_text", "tokens_merges", "tokens"),
    ("predict_sampling", "predict_bars", "predict_tree", "predict_text", "predict"),
    ("inside_tree", "inside_drawing", "inside_attention", "inside_lens", "inside"),
    ("training_chart", "training_watch", "training_compare", "training"),
    ("data", "data_documents", "data_batches"),
    ("trace_parts", "trace_contamination", "trace"),
)
"""Scripts of each page, in the order of the pages; the last of each has its name, and may have a style sheet."""
SCRIPTS = ("dom", "source", "colours", "frame", "strip", *(name for page in PAGES for name in page), "start")
"""Files of static/, in the order in which they run; they share one scope."""
STYLES = ("window", "tokens", "predict", "inside", "training", "data", "trace")


def joined(names: tuple[str, ...], suffix: str) -> str:
    return "\n".join((HERE / "static" / f"{name}.{suffix}").read_text(encoding="utf-8") for name in names)


def sha256_source(text: str) -> str:
    """Hash source of an inline script or style, for a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def window_html(recorded: Mapping[str, object] | None = None, back: str = "") -> str:
    """Return the HTML: with `recorded`, {key: answer} of inspections.record, the exported page, which queries no
    server. `back` is the URL of the run's report, "" if there is none."""
    script = f'"use strict";\n(() => {{\n{joined(SCRIPTS, "js")}\n}})();\n'
    style = joined(STYLES, "css")
    policy = (
        f"default-src 'none'; script-src {sha256_source(script)}; style-src {sha256_source(STYLE + style)}; "
        f"img-src data:; connect-src {'none' if recorded else 'self'!r}; base-uri 'none'; form-action 'none'"
    )
    return fill(
        HERE / "window.html", style, script, policy=policy, back=back,
        recorded=script_json(recorded) if recorded is not None else "",
    )  # fmt: skip


def script_json(value: object) -> str:
    """JSON that cannot close a <script>, whatever texts it contains."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


HEADERS = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
"""Policy of the run's report. A run folder may be untrusted: its scripts get their own origin, so that they can access
neither the server's API nor its key."""


def served_pages(run: Path, with_report: bool = True) -> dict[str, Callable[[], Response]]:
    """Return {path: function that responds}: the window, the report of the run in the folder `run` if it has one, and
    docs/. The report contains texts of the run, and browsers open it without a key: a server with a key omits it."""
    report = {
        f"/{RunPaths.report}/{path.name}": path
        for path in sorted(RunPaths(run).report.glob("*.html"))
        if with_report and path.resolve().is_relative_to(run.resolve())
    }
    index = f"/{RunPaths.report_page}"
    html = window_html(back=index if index in report else "")

    def page(content: str | bytes, policy: str, media_type: str = "text/html; charset=utf-8") -> Response:
        headers = HEADERS | {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"}
        return Response(content, headers=headers, media_type=media_type)

    pages: dict[str, Callable[[], Response]] = {
        "/": lambda: RedirectResponse("/window"),
        "/window": lambda: page(html, "base-uri 'none'"),
    }
    for address, path in report.items():
        pages[address] = lambda path=path: page(path.read_bytes(), SANDBOX)
    for address, path in doc_files().items():
        if path.suffix == ".md":
            pages[address] = lambda path=path: page(*doc_html(path))
        else:
            pages[address] = lambda path=path: page(path.read_bytes(), "default-src 'none'", f"image/{path.suffix[1:]}")
    return pages

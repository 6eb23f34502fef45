"""Render self-contained pages from templates, with the same filters and content security policy for all."""

import base64
import hashlib
from pathlib import Path

from lm.terminal import counted
from viewer.explanations import stage_name
from viewer.formats import bits, compact, count, decimals, percent, plain, seconds, size, value
from viewer.training_data import visible

HERE = Path(__file__).parent
STYLE = (HERE / "style.css").read_text(encoding="utf-8")
"""CSS of all pages."""
CHARTS_SCRIPT = (HERE / "charts.js").read_text(encoding="utf-8")
"""Script of the pages with charts."""
FILTERS = {
    "count": count, "counted": counted, "compact": compact, "size": size, "seconds": seconds, "decimals": decimals,
    "plain": plain, "value": value, "bits": bits, "stage": stage_name, "visible": visible,
}  # fmt: skip


def fill(template: Path, style: str = "", script: str = "", **values: object) -> str:
    """Return the HTML of a page: only `script` may run in it, and `style` is appended to STYLE.

    Texts are escaped by jinja2's autoescape.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, HERE]), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= FILTERS
    html = environment.get_template(template.name).render(
        style=STYLE + style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        percent=percent,
        **values,
    )
    return html.encode("utf-8", "replace").decode()  # a lone surrogate in a text must not stop the page

"""Update the figures and pictures in README.md and docs/ from a demo run.

    python -m tests.docs_figures runs/demo      # with runs/assistant next to it (make chat)

A comment before a figure marks it, `<!-- demo: bits_per_byte -->1.716`, and the JSON after `<!-- demo: seen 622 -->` is
the server's response. Pictures (docs/report.png and those of docs/tour.md) store the figures of their run inside the
PNG, under "demo", so that a test recognizes an old picture. Pictures need `make browser`, chromium and the corpus index
of the run (`launch.index_corpus`).
"""

import json
import re
import sys
import urllib.request
from pathlib import Path

from PIL import Image, PngImagePlugin

from tests.run_files import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PICTURES = [REPOSITORY / "docs/report.png", *sorted((REPOSITORY / "docs/window").glob("tour-*.png"))]
MARK = re.compile(r"(<!-- demo: ([a-z_]+) -->\s?)(\d[\d,.]*\d)")
SEEN = re.compile(r"(<!-- demo: seen (\d+) -->\s*```json\n)(.*?)(\n```)", re.DOTALL)
REPORT_HEIGHT = 1500
"""CSS pixels of the report's top in docs/report.png."""
CHAT_HEIGHT = 772
"""CSS pixels of the conversations in docs/window/tour-chat.png."""


def figures(run: Path) -> dict[str, str]:
    """{name of a mark: its figure as written in docs} of a finished demo run."""
    summary = json.loads((run / "summary.json").read_text())
    return {
        "pages": f"{summary['pages_read']:,}",
        "documents": f"{summary['documents_kept']:,}",
        "text_megabytes": f"{summary['clean_text_bytes'] / 1e6:.1f}",
        "parameters_millions": f"{summary['parameters'] / 1e6:.1f}",
        "bits_per_byte": f"{summary['validation_bits_per_byte']:.2f}",
        "gzip": f"{summary['gzip_bits_per_byte']:.2f}",
        "xz": f"{summary['xz_bits_per_byte']:.2f}",
    }


def marked(text: str) -> list[tuple[str, str]]:
    """(name, figure) of every mark in a page."""
    return [(name, figure) for _, name, figure in MARK.findall(text)]


def picture_figures(path: Path) -> dict[str, str]:
    """The figures of the run that a picture shows, {} of an unmarked one."""
    with Image.open(path) as picture:
        return json.loads(picture.info.get("demo", "{}"))


def mark_picture(path: Path, of_run: dict[str, str]) -> None:
    with Image.open(path) as picture:
        info = PngImagePlugin.PngInfo()
        info.add_text("demo", json.dumps(of_run))
        picture.save(path, "PNG", optimize=True, pnginfo=info)


def seen(url: str, document: int) -> dict:
    """The response of a server at `url` to the inspection `seen`."""
    body = json.dumps({"document": document}).encode()
    request = urllib.request.Request(f"{url}/v1/inspect/seen", data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def main() -> None:
    from tests.server_process import serving
    from tests.window.browser import WIDE, Watched, chromium, missing, settle
    from tests.window.pictures import reduced, take_tour

    if len(sys.argv) != 2 or missing():
        sys.exit(missing() or __doc__)
    run = Path(sys.argv[1])
    of_run = figures(run)
    with serving(run) as server:
        take_tour(f"{server.url}/window", REPOSITORY / "docs/window")
        for page in PAGES:
            text = MARK.sub(lambda found: found[1] + of_run[found[2]], page.read_text())
            text = SEEN.sub(lambda found: found[1] + json.dumps(seen(server.url, int(found[2]))) + found[4], text)
            page.write_text(text)
    with chromium() as browser:
        for folder, page, first, height, picture in (
            (run, "", "header", REPORT_HEIGHT, "report.png"),
            (run.with_name("assistant"), "#chat", ".chat-turn", CHAT_HEIGHT, "window/tour-chat.png"),
        ):
            watched = Watched(browser, width=WIDE)
            watched.page.goto((folder / "report/index.html").resolve().as_uri() + page)
            settle(watched.page)
            top = max(0, watched.page.locator(first).first.bounding_box()["y"] - 12)
            clip = {"x": 0, "y": top, "width": WIDE, "height": height}
            small = reduced(watched.page.screenshot(clip=clip, full_page=True))
            (REPOSITORY / "docs" / picture).write_bytes(small)
            watched.close()
    for path in PICTURES:
        mark_picture(path, of_run)


if __name__ == "__main__":
    main()

"""Pictures of the window for docs/, each page in light, in dark and as wide as a phone.

    python -m tests.window.pictures runs/demo docs/window [--text 'The mill stood by the river'] [--pages tokens inside]

Serves the run, and writes OUT/PAGE.png, OUT/PAGE-dark.png and OUT/PAGE-narrow.png, each below 150 kB: the first screens
of the page, in as few colours as that takes. Needs `make browser` and chromium.
"""

import argparse
import io
import sys
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from tests.run_files import has_model
from tests.server_process import serving
from tests.window.browser import PHONE, WIDE, Watched, chromium, missing, page_ids, settle

MOST_BYTES = 150_000
HEIGHTS = {WIDE: 1500, PHONE: 1400}
"""{width: CSS pixels of a page's top that are taken, at most}."""
LOOKS = {"": (WIDE, False), "-dark": (WIDE, True), "-narrow": (PHONE, False)}
"""{end of the name: (width, dark)}."""


def reduced(png: bytes) -> bytes:
    """The picture with a palette of its own, of as many colours as fit into MOST_BYTES."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64, 32, 16):
        out = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if len(out.getvalue()) < MOST_BYTES:
            break
    return out.getvalue()


def take(window: str, out: Path, text: str, only: list[str]) -> None:
    """Pictures of the pages of the window at this address. Raises AssertionError where anything went wrong in one."""
    with chromium() as browser:
        for end, (width, dark) in LOOKS.items():
            watched = Watched(browser, width=width, dark=dark)
            page = watched.page
            page.goto(window)
            settle(page)
            for id in only or page_ids(page):
                page.goto(f"{window}#{id}?text={quote(text)}" if text else f"{window}#{id}")
                page.wait_for_selector(f".page-{id}")
                settle(page)
                page.wait_for_timeout(1000)  # what is drawn after the answers
                height = min(HEIGHTS[width], page.evaluate("document.documentElement.scrollHeight"))
                png = page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height}, full_page=True)
                (out / f"{id}{end}.png").write_bytes(small := reduced(png))
                print(f"{out / f'{id}{end}.png'}: {width} x {height}, {len(small) / 1000:.0f} kB")
            watched.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", default="", help="what all pages look at; by default the run's first prompt")
    parser.add_argument("--pages", nargs="*", default=[], help="names as in the window's addresses; by default all")
    given = parser.parse_args()
    if reason := missing():
        sys.exit(f"pictures: {reason}")
    if has_model(given.run, "pictures"):
        given.out.mkdir(parents=True, exist_ok=True)
        with serving(given.run) as server:
            take(f"{server.url}/window", given.out, given.text, given.pages)


if __name__ == "__main__":
    main()

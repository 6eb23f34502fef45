"""Pictures of the window for docs/tour.md, taken by tests/docs_figures.py."""

import io
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from PIL import Image

from tests.window.browser import WIDE, Watched, chromium, settle


class View(NamedTuple):
    """A picture of the tour: a part of a page."""

    address: str
    """The part of the window's URL after #."""
    part: str
    """CSS selector of the captured element."""
    height: int
    """Maximum size in CSS pixels."""
    wait: str = ""
    """CSS selector of an element that must exist, besides the captured one."""
    press: str = ""
    """CSS selector of a button that is pressed first."""


FOG = quote(
    "Fog is a visible aerosol consisting of tiny water droplets or ice crystals held in the air "
    "near the Earth's surface."
)
START = quote("Fog is a visible")
TEST = quote("Which chemical element has the symbol Fe and the atomic number 26? Iron")
MOST_BYTES = 120_000
TOUR = {
    "page": View("data?view=document&number=957", "main", 1300),
    "funnel": View("data?view=funnel", "main", 1000),
    "merges": View(f"tokens?text={FOG}&merges=22", ".panel:has(.tokens-story)", 700),
    "batch": View("data?view=batch&batch=227&sequence=0", "main", 1300),
    "network": View(f"inside?text={START}", ".inside-network", 900),
    "attention": View(f"inside?text={FOG}&layer=2&head=1&token=37", "section:has(> #inside-attention)", 1000),
    "lens": View(f"inside?text={FOG}", "section:has(> #inside-lens)", 1000),
    "loss-0": View(f"predict?text={FOG}&step=0", ".page-predict .panel >> nth=-1", 320, press="text=Show bits below"),
    "loss": View(f"predict?text={FOG}", ".page-predict .panel >> nth=-1", 900, press="text=Show bits below"),
    "training": View(f"training?text={FOG}&step=256", ".training-watch", 1300, press="text=Compute every step"),
    "recite": View("trace", ".trace-section:has(> #trace-recite)", 900, press="text=Test memorization"),
    "predict": View(f"predict?text={START}&temperature=0.7", ".page-predict .split", 900),
    "trace": View(
        f"trace?text={START}", ".trace-section:has(> #trace-trace)", 1000, ".trace-documents", "text=Continue and trace"
    ),
    "contamination": View(
        f"trace?questions={FOG}%0A{TEST}", ".trace-section:has(> #trace-contamination)", 1000, ".trace-documents"
    ),
    "question": View(f"predict?text={quote('What is fog?')}", ".page-predict .split", 900),
}
"""{name: picture of docs/tour.md}."""


def reduced(png: bytes) -> bytes:
    """The picture with an adaptive palette of as many colors as fit into MOST_BYTES."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64, 32, 16):
        out = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if len(out.getvalue()) < MOST_BYTES:
            break
    return out.getvalue()


def take_tour(window: str, out: Path) -> None:
    """Write OUT/tour-NAME.png, each below MOST_BYTES, of a newly opened page."""
    with chromium() as browser:
        for name, view in TOUR.items():
            watched = Watched(browser, width=WIDE)
            page = watched.page
            page.goto(f"{window}#{view.address}")
            settle(page)
            if view.press:
                page.click(view.press)
            if view.wait:
                page.wait_for_selector(view.wait)
            settle(page)
            page.evaluate("scrollTo(0, 0)")  # pressing may have scrolled, and boxes are relative to the screen's top
            box = page.locator(view.part).bounding_box()
            clip = {"x": 0, "y": max(0, box["y"] - 12), "width": WIDE, "height": min(view.height, box["height"] + 24)}
            small = reduced(page.screenshot(clip=clip, full_page=True))
            (out / f"tour-{name}.png").write_bytes(small)
            print(f"{out / f'tour-{name}.png'}: {WIDE} x {clip['height']:.0f}, {len(small) / 1000:.0f} kB")
            watched.close()

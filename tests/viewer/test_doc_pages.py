"""README and docs/ as pages of the server: every link leads to a page, and no external resource is used."""

import re
from urllib.parse import urljoin

import pytest

from viewer.page import doc_files, doc_html

PAGES = sorted(address for address, path in doc_files().items() if path.suffix == ".md")


@pytest.mark.parametrize("address", PAGES)
def test_links_of_a_page_lead_to_existing_pages_and_anchors(address):
    html, _ = doc_html(doc_files()[address])
    for target in re.findall(r'(?:href|src)="([^"]+)"', html):
        if target == "data:" or target.startswith(("http://", "https://")):
            continue
        place, _, anchor = urljoin(address, target).partition("#")
        assert place in doc_files() or not place.endswith((".md", ".png")), target
        if anchor and place.endswith(".md"):
            assert f'id="{anchor}"' in doc_html(doc_files()[place])[0], target

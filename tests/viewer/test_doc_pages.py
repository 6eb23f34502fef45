"""README and docs/ as the server's pages: every link of theirs leads to a page, and nothing outside is named."""

import re
from urllib.parse import urljoin

import pytest

from viewer.doc_pages import doc_files, doc_html
from viewer.window.page import served_pages

PAGES = sorted(address for address, path in doc_files().items() if path.suffix == ".md")


@pytest.mark.parametrize("address", PAGES)
def test_links_of_a_page_lead_to_pages_and_anchors_that_exist(address):
    html, _ = doc_html(doc_files()[address])
    for target in re.findall(r'(?:href|src)="([^"]+)"', html):
        if target == "data:" or target.startswith(("http://", "https://")):
            continue
        place, _, anchor = urljoin(address, target).partition("#")
        assert place in doc_files() or not place.endswith((".md", ".png")), target
        if anchor and place.endswith(".md"):
            assert f'id="{anchor}"' in doc_html(doc_files()[place])[0], target


def test_a_report_that_is_a_link_out_of_the_run_folder_is_not_served(tmp_path):
    (tmp_path / "run/report").mkdir(parents=True)
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "run/report/index.html").symlink_to(tmp_path / "secret")
    (tmp_path / "run/report/funnel.html").write_text("funnel")
    pages = served_pages(tmp_path / "run")
    assert "/report/index.html" not in pages and pages["/report/funnel.html"]().body == b"funnel"
    assert 'href="/report/index.html"' not in bytes(pages["/window"]().body).decode()


def test_a_server_with_a_key_does_not_serve_the_report_which_has_texts_of_the_run(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report/index.html").write_text("report")
    assert served_pages(tmp_path)["/report/index.html"]().body == b"report"
    pages = served_pages(tmp_path, with_report=False)
    assert not any(address.startswith("/report") for address in pages)
    assert 'href="/report/index.html"' not in bytes(pages["/window"]().body).decode()

"""Every list that users write is read by one rule: blank lines, comments (also indented ones), a byte order mark, and
any line end do not change its entries."""

import io

import numpy as np
import pytest

from data_prep.quality.bad_words import words_of
from data_prep.url_filter.lists import entries, hash_domains, hash_pages
from tests.data_prep.pages import named_files

READERS = {
    "bad words": lambda path: sorted([*(found := words_of((str(path),), True)).words, *found.phrases]),
    "domains": lambda path: np.sort(np.concatenate([*hash_domains(io.BytesIO(path.read_bytes()))])).tolist(),
    "urls": lambda path: np.sort(np.concatenate([*hash_pages(io.BytesIO(path.read_bytes()))])).tolist(),
    "banned words": lambda path: sorted(entries(path.read_bytes())),
    "files": lambda path: sorted(named_files("pages.tables", [f"@{path}"]).values()),
}
FORMS = {
    "a byte order mark": "\ufeffa.example\nb.example\n",
    "comments": "# a list\na.example\n  # indented\n\t#b\nb.example",
    "a marked comment": "\ufeff# a list\na.example\nb.example",
    "blank lines": "\n \na.example\n\t\nb.example\n\n",
    "spaces and CR LF": " a.example \r\n\tb.example\r\n",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_a_list_does_not_change_its_entries(tmp_path, reader, form):
    for name in ("a.example", "b.example"):
        (tmp_path / name).write_text("x")
    plain, written = tmp_path / "plain", tmp_path / "written"
    plain.write_bytes(b"a.example\nb.example\n")
    written.write_bytes(FORMS[form].encode())
    assert READERS[reader](written) == READERS[reader](plain)
    assert len(READERS[reader](plain)) == 2

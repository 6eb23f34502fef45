"""Rules of the published FineWeb (April 2024): examples/fineweb.py of huggingface/datatrove at 05194d39.

The rules are the same, not the bytes: extraction then had a time limit of 0.1 s per page and kept state between pages.
Each line below is a difference from datatrove_0_10.py. docs/recipes.md compares the rules.
"""

import dataclasses

from configs.recipes import datatrove_0_10, gristmill
from data_prep.config import DocumentsConfig, Filter, PackageLists, UrlFilterConfig
from data_prep.package_index import PackageFile

URL_FILTER = dataclasses.replace(
    datatrove_0_10.URL_FILTER,
    packages=(
        PackageLists(
            file=PackageFile(
                project="datatrove",
                version="0.2.0",  # 22 April 2024, with the lists of that commit
                name="datatrove-0.2.0-py3-none-any.whl",
                sha256="93c7054ee52fa6b21355d9708ab1d6d380b9c1f8379dc242cd29e80e40f68ff0",
            ),
            folder="datatrove/assets",
            licence="CC BY-SA (domains and pages), Apache-2.0 (words)",
            credit="FineWeb's lists: the adult sites of Université Toulouse Capitole, and the words of datatrove",
        ),
    ),
)

EXTRACT = dataclasses.replace(datatrove_0_10.EXTRACT, xhtml=False)

LANGUAGE = dataclasses.replace(
    datatrove_0_10.LANGUAGE,
    line_breaks="nothing",
)

GOPHER_REPETITION = dataclasses.replace(
    gristmill.GOPHER_REPETITION,
    words="nltk",
    count_blank_lines=True,
)

GOPHER_QUALITY = dataclasses.replace(
    gristmill.GOPHER_QUALITY,
    words="nltk",
    count_stop_words="occurrences",
    terminal_marks=False,
)

C4 = dataclasses.replace(
    gristmill.C4,
    sentences="punkt",
)

FINEWEB = dataclasses.replace(
    gristmill.FINEWEB,
    words="nltk",
    line_ends=(".", "'", '"', "!", "?"),
    count_blank_lines=True,
    limit_falls=True,
)

FILTERS = (GOPHER_REPETITION, GOPHER_QUALITY, C4, FINEWEB)

MINHASH = dataclasses.replace(
    gristmill.MINHASH,
    normalisation="fineweb_2024",
)

PERSONAL_DATA = dataclasses.replace(
    datatrove_0_10.PERSONAL_DATA,
    emails="lower_case",
)


def documents(dump: str, url_filter: UrlFilterConfig = URL_FILTER, *more: Filter) -> DocumentsConfig:
    """Return this recipe's DocumentsConfig for one crawl, `dump`; `more` are your filters, run after the recipe's."""
    return gristmill.documents(
        dump,
        url_filter,
        *more,
        filters=FILTERS,
        dedup=("minhash_dedup",),
        extract=EXTRACT,
        language=LANGUAGE,
        minhash=MINHASH,
        personal_data=PERSONAL_DATA,
    )

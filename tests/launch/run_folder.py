"""A run folder as the other stages leave it, written in a second through the types they use."""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.experiment import load_config
from data_prep.documents import DOCUMENT_SCHEMA, REJECTION_SCHEMA, Document, Rejection
from lm.config import TokenizerConfig
from lm.records import Manifest, Split
from lm.tokenizer import save, train_bpe

REPOSITORY = Path(__file__).parents[2]


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


def write_documents(folder: Path, documents: list[Document], files: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(files):
        rows = [dataclasses.asdict(document) for document in documents[i::files]]
        pq.write_table(pa.Table.from_pylist(rows, DOCUMENT_SCHEMA), folder / f"{i:05d}.parquet")


def write_rejections(folder: Path, rejections: list[Rejection], files: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(files):
        rows = [
            dataclasses.asdict(one.document) | {"stage": one.stage, "reason": one.reason}
            for one in rejections[i::files]
        ]
        pq.write_table(pa.Table.from_pylist(rows, REJECTION_SCHEMA), folder / f"{i:05d}.parquet")


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_run(
    workdir: Path,
    documents: list[Document],
    rejections: list[Rejection],
    packages: list[dict] | None = None,
    vocabulary_size: int = 300,
    metrics: list[dict] | None = None,
    samples: list[dict] | None = None,
    final: list[dict] | None = None,
    evaluation: dict | None = None,
) -> None:
    """A finished run; what is not given is small but whole."""
    experiment = load_config(REPOSITORY / "configs/demo.py")
    write_json(workdir / "config.json", dataclasses.asdict(experiment))
    files = [{"path": "pages/00000.warc.gz", "bytes": 123_456, "pages": len(documents) + len(rejections)}]
    write_json(workdir / "pages/manifest.json", {"files": files, "packages": packages or []})
    write_documents(workdir / "documents", documents)
    write_rejections(workdir / "dropped", rejections)

    config = TokenizerConfig(vocabulary_size=vocabulary_size, split_pattern="cl100k", train_characters=10**8)
    tokenizer = train_bpe([document.text for document in documents], config)
    save(tokenizer, workdir / "tokenizer")
    splits = {}
    for name, part in (("train", documents[1:] or documents), ("val", documents[:1])):
        tokens = sum(len(tokenizer.encode(document.text)) + 1 for document in part)
        text_bytes = sum(len(document.text.encode()) for document in part)
        splits[name] = Split(documents=len(part), tokens=tokens, text_bytes=text_bytes, records=1, shards=())
    manifest = Manifest(tokenizer.fingerprint, vocabulary_size, 4096, "uint16", splits)
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
    for stage, seconds in (("shards", 2.0), ("train", 65.0), ("pages", 1.5)):
        write_json(workdir / f"stages/{stage}.json", {"key": "0", "settings": {}, "seconds": seconds, "files": {}})

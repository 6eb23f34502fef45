"""README.md of an exported dataset: contents, sources, dropped documents with reasons, and how to load it."""

import itertools
import json
import re
from collections.abc import Iterator

import pyarrow as pa

from data_prep.funnel.report import read_counts
from launch.release.documents_run import DATA, TOKEN_COUNT, DocumentsRun, Exported
from launch.release.model_card import funnel_lines, language_lines, pages, table
from viewer.run_folder import reasons_in_order

SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
COLUMNS = {
    "text": "the text, cleaned",
    "id": "identifies the document",
    "dump": "the crawl that it is from",
    "url": "its address",
    "date": "when it was fetched",
    "file_path": "the file that it is from",
    "language": "its language",
    "language_script": "its script",
    "language_score": "probability of the language",
    TOKEN_COUNT: "tokens of the text",
}


def dataset_card(run: DocumentsRun, exported: Exported, folder: str) -> str:
    """Return README.md of an exported dataset: YAML front matter and Markdown. `folder` is the name of the dataset's
    folder, for the example that loads it."""
    lines = itertools.chain(pages(run.folder, run.experiment), funnel_lines(run.folder, run.experiment))
    source = "\n".join(["## Source and settings", "", *lines])
    parts = [head(run, exported), about(run, exported), how_to_load(folder), columns(run, exported.schema), source]
    return "\n\n".join(part for part in [*parts, dropped(run), limits(run)] if part) + "\n"


def head(run: DocumentsRun, exported: Exported) -> str:
    """YAML front matter of the card. It lists the data files, so that load_dataset ignores other files in the folder,
    and the column types, which load_dataset would otherwise infer from the first JSONL file."""
    size = SIZES[min(max(len(str(exported.rows)) - 3, 0), len(SIZES) - 1)]
    return "\n".join([
        "---", *language_lines(run.experiment), "task_categories:",
        "- text-generation", "size_categories:", f"- {size}", "dataset_info:", "  features:",
        *features(exported.schema), "configs:", "- config_name: default", "  data_files:", "  - split: train",
        f"    path: {DATA}/*.{exported.format}", "tags:", "- gristmill", "---",
    ])  # fmt: skip


def features(schema: pa.Schema) -> Iterator[str]:
    """Yield the lines of YAML that describe the columns, as in `dataset_info` of the library datasets."""
    words = {"double": "float64", "float": "float32", "date32[day]": "date32"}
    for field in schema:
        is_list = pa.types.is_list(field.type)
        kind = str(field.type.value_type if is_list else field.type)
        yield f"  - name: {json.dumps(field.name)}"
        yield f"    {'sequence' if is_list else 'dtype'}: {json.dumps(words.get(kind, kind))}"


def about(run: DocumentsRun, exported: Exported) -> str:
    return (
        f"# {run.name}\n\n{exported.rows:,} documents with {exported.text_bytes:,} bytes of text, in "
        f"{exported.files:,} files ({exported.format}). They are the documents that Gristmill kept in the run "
        f"{run.name}."
    )


def how_to_load(folder: str) -> str:
    return (
        "## How to load it\n\n```python\nfrom datasets import load_dataset\n\n"
        f'documents = load_dataset("{re.sub(r"[^\w. -]", "_", folder)}", split="train")\n```'
    )


def columns(run: DocumentsRun, schema: pa.Schema) -> str:
    counted = "by the run's own tokenizer" if run.tokenizer else "from the input table, for the text in it"
    kept = dict.fromkeys(run.experiment.pages.keep_columns, "a column of the input tables")
    words = {**COLUMNS, TOKEN_COUNT: f"{COLUMNS[TOKEN_COUNT]}, {counted} (FineWeb counts those of GPT-2)"} | kept
    rows = [(f"`{one.name}`", str(one.type), words.get(one.name, "measured on the text")) for one in schema]
    return "\n".join(["## Columns", "", *table(("column", "type", "what it is"), rows)])


def dropped(run: DocumentsRun) -> str:
    """Markdown table of the documents that each step dropped, with reasons; "" if there are none."""
    found = reasons_in_order(read_counts(run.folder.funnel).counts, run.experiment.documents)
    rows = [(stage, reason, f"{documents:,}") for stage, reason, documents, _ in found]
    return "\n".join(["## Dropped documents", "", *table(("step", "reason", "documents"), rows)]) if rows else ""


def limits(run: DocumentsRun) -> str:
    kinds = ", ".join(run.experiment.documents.personal_data.kinds) or "none"
    return (
        f"## Limits\n\nKinds of personal data that were replaced: {kinds}. Other kinds, and personal data that was "
        "not recognized, are still there; columns of the input tables are unchanged. The texts belong to their "
        "authors; this dataset gives no license to them."
    )

"""Last pass over each file of texts/: write kept and dropped documents according to the rules and the duplicates found.
The results of the joins are in one file per file of texts/, so a file whose results did not change is not filtered
again."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from data_prep.config import DocumentsConfig
from data_prep.dedup.clusters import repeats
from data_prep.dedup.survivors import Edit, edits_name, read_edits
from data_prep.documents import document_schema
from data_prep.engine import Workspace
from data_prep.engine.tasks import File, FileRunner, StoredFile
from data_prep.funnel.counts import Counts, add_pair, append_counts, cluster_bin, empty_counts, merge
from data_prep.measure.row import text_schema, value_columns
from data_prep.parquet import read_footer, text_bytes_of, write_rows
from data_prep.pii import replace_personal_data
from data_prep.select.duplicates import read_duplicates
from data_prep.select.filtered import edit_steps, filtered_rows
from data_prep.select.fixes import fix_encoding, without_symbol_lines
from lm.errors import UsageError, shown
from lm.storage import write_atomically

CLUSTER_SIZE = "cluster_size"
"""Column of documents/: number of documents in the duplicate cluster of this one; written if the config asks for it."""
REPEAT = "repeat"
"""Column of documents/: how often to repeat the document, by the size of its cluster (minhash.upsampling_weights)."""
DUPLICATE_OF = "duplicate_of"
"""Column of dropped/: the document kept instead of a duplicate, "NAME.parquet:ROW" of texts/ or "INDEX#ID", or null."""


def kept_schema(config: DocumentsConfig, from_table: Sequence[pa.Field] = ()) -> pa.Schema:
    """Return the schema of documents/. `from_table` are the columns of the input table (pages.keep_columns)."""
    columns = [*document_schema(config.language.labelled), *map(text_schema(config).field, value_columns(config))]
    if config.minhash.cluster_sizes:
        columns.append(pa.field(CLUSTER_SIZE, pa.int64()))
    if config.minhash.upsampling_weights:
        columns.append(pa.field(REPEAT, pa.int64()))
    return pa.schema([*columns, *from_table])


def dropped_schema(config: DocumentsConfig, from_table: Sequence[pa.Field] = ()) -> pa.Schema:
    """Return the schema of dropped/. `from_table` are the columns of the input table (pages.keep_columns)."""
    return pa.schema([*text_schema(config), (DUPLICATE_OF, pa.string()), *from_table])


def refuse_own_columns(names: Iterable[str], config: DocumentsConfig) -> None:
    """Raise UsageError if one of `names`, the columns of pages.keep_columns, is a column that the pipeline itself
    writes to texts/, documents/ or dropped/."""
    documents = document_schema(labelled=True).names
    computed = {*text_schema(config).names, CLUSTER_SIZE, REPEAT, DUPLICATE_OF} - {*documents}
    for name in names:
        if name in documents:
            raise UsageError(f"pages.keep_columns has {shown(name)}, which every document has anyway. Remove it.")
        if (head := name.split(".")[0]) in {*documents, *computed}:  # pyarrow would read "a.b" as a part of "a"
            raise UsageError(
                f"pages.keep_columns has {shown(name)}, but {head} is a computed column. Rename the column in your "
                "files, or remove it."
            )


def apply_filters(file: StoredFile, space: Workspace, config: DocumentsConfig) -> dict:
    """Write the kept and the dropped documents of a file of texts/, in order, with personal data replaced, and counts
    of both (funnel/counts.py); dropped ones only with config.write_dropped. Returns {"documents": kept documents,
    "text_bytes": bytes of their texts}."""
    kept, dropped = (space.output(f"{name}/{file.path.name}") for name in ("documents", "dropped"))
    duplicates, sizes = read_duplicates(file, space)
    edits: dict[int, list[tuple[str, Edit]]] = {}
    """{row: [(step, edit), ...]} of the documents that have edits, in the order of the steps."""
    for step in edit_steps(config):
        for row, edit in read_edits(space.place(edits_name(step, file.name))).items():
            edits.setdefault(row, []).append((step, edit))
    parts = filtered_rows(file.path, config, space.count, duplicates)
    first = next(parts, None)
    from_table = first.from_table if first else ()
    schemas = {kept: kept_schema(config, from_table), dropped: dropped_schema(config, from_table)}
    columns, counts = schemas[kept].names, [empty_counts()]

    def rows() -> Iterator[tuple[Path, dict]]:
        for filtered in itertools.chain([first] if first else [], parts):
            replaced, clean_text_bytes, clusters = Counter(), 0, dict[str, list[int]]()
            for number, row in enumerate(filtered.rows):
                for step, edit in edits.get(filtered.first + number, ()):
                    row["text"] = edit.applied(row["text"])
                    filtered.verdicts[number] = (step, edit.reason) if edit.reason else None
                if filtered.verdicts[number] and not config.write_dropped:
                    continue
                text = fix_encoding(row["text"], config.by_language)
                text, kinds = replace_personal_data(text, config.personal_data)
                row["text"] = without_symbol_lines(text, config.by_language)
                if verdict := filtered.verdicts[number]:
                    stage, reason = verdict
                    other = duplicates.get(filtered.first + number)
                    row |= {"stage": stage, "reason": reason, DUPLICATE_OF: other.name if other else None}
                    yield dropped, row
                else:
                    replaced.update(kinds)
                    clean_text_bytes += len(row["text"].encode())
                    if config.counts_clusters:
                        size = sizes.get(filtered.first + number, 1)
                        add_pair(clusters, cluster_bin(size), size)
                        row |= {CLUSTER_SIZE: size}
                        if weights := config.minhash.upsampling_weights:
                            row[REPEAT] = repeats(size, weights)
                    yield kept, {name: row[name] for name in columns}
            besides = {"replaced": dict(+replaced), "clean_text_bytes": clean_text_bytes}  # without zeros
            if config.counts_clusters:
                besides["cluster_sizes"] = clusters
            append_counts(counts, merge([filtered.counts(file.id, config), empty_counts() | besides]))

    write_rows(rows(), schemas, space.scratch)
    write_atomically(space.output(f"parts/counts/{file.name}.json"), json.dumps(merge(counts)))
    footer = read_footer(kept)
    return {"documents": footer.num_rows, "text_bytes": sum(text_bytes_of(footer))}


def merge_counts(files: Sequence[File], run: FileRunner) -> Counts:
    return merge(json.loads(place.read_bytes()) for place in run.merge("counts", files, merge_files))


def merge_files(paths: Sequence[Path], path: Path, scratch: Path) -> int:
    counts = merge(json.loads(one.read_bytes()) for one in paths)
    write_atomically(path, json.dumps(counts))
    return counts["rows"]

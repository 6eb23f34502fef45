"""Which documents may be duplicates of one another: those of one scope, since it is part of every key. Pure."""

from collections.abc import Mapping

from data_prep.config import DocumentsConfig


def scope_of(row: Mapping[str, str], config: DocumentsConfig) -> str:
    """The dump of a document, or "" where duplicates are looked for across dumps; then its language, where they are
    looked for by language."""
    dump = dump_of(row, config)
    script = f"_{row['language_script']}" if config.language.labelled else ""
    return f"{dump}\0{row['language']}{script}" if config.minhash.by_language else dump


def dump_of(row: Mapping[str, str], config: DocumentsConfig) -> str:
    """The scope of addresses: a page has one, whatever its language."""
    return "" if config.across_dumps else row["dump"]


def index_scope_of(row: Mapping[str, str], config: DocumentsConfig) -> str:
    """The scope of keys of an index (data_prep/dedup_index), where dumps meet."""
    return f"\0{row['language']}" if config.minhash.by_language else ""

"""Index of the keys of a run's documents. Later runs drop documents that are already in it, without reading their
texts.

An index is a folder (docs/deduplication.md):

    index.json            the settings of the keys, and the list of the files
    keys/KIND/N.parquet   sorted keys with the place of the kept document; each file has one range of keys
    ids/NAME.parquet      the IDs of these documents, by row of the run's texts/NAME.parquet

May import: data_prep.dedup, data_prep.select.
"""

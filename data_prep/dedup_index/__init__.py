"""The keys of one run's documents, for later runs: what was there before is dropped without reading it again.

An index is a folder (docs/deduplication.md):

    index.json            what the keys are of, and the list of the files
    keys/KIND/N.parquet   sorted keys with the place of the document that stayed; each file one range of keys
    ids/NAME.parquet      the ids of these documents, by row of the run's texts/NAME.parquet

May import: data_prep.dedup.
"""

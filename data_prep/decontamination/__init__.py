"""Documents that hold text of evaluation sets are found, by n-grams of words, and dropped or reported.

May import: data_prep.config, dedup, engine, parquet.
"""

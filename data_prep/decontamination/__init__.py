"""Find documents that share n-grams of words with evaluation sets, and drop or report them.

May import: data_prep.config, dedup, engine, parquet.
"""

"""Tokenize documents into ArrayRecord shards (tokens/).

May import: data_prep.dedup, data_prep.engine, lm.tokenizer, lm.data.records.
"""

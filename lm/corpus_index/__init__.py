"""Which passages stand in a run's own token shards, where, and how often: a suffix array, made when asked.

build.py makes the folder, index.py reads it. May import: lm.data, lm.tokenizer.
"""

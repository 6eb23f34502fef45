"""Look up passages in a run's token shards: whether, where and how often they occur. Uses a suffix array, built on
demand.

build.py writes the folder, index.py reads it, lookups.py and spans.py search texts in it. May import: lm.data,
lm.tokenizer.
"""

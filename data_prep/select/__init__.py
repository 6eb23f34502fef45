"""Apply filters and deduplication: split the rows of texts/ into kept and dropped documents (documents/, dropped/).

May import: data_prep.measure, dedup, pii, funnel, engine.
"""

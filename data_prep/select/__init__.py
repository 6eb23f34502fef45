"""Rows to kept and dropped documents, by the recipe's rules (documents/).

May import: data_prep.measure, dedup, pii, funnel, engine.
"""

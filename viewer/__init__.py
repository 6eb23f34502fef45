"""Pages for people: the report of a run, and the tokenizer's page.

May import: configs, data_prep, lm.
"""

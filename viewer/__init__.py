"""HTML pages: the report of a run, the page of a tokenizer, and the window.

May import: configs, data_prep, lm.
"""

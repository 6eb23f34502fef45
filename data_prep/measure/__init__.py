"""Convert pages to rows of texts/: text, language, and every signal that a rule may use.

May import: data_prep.sources, extract, language, quality, url_filter, engine.
"""

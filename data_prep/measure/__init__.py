"""Page to row: text, language and every signal that a rule may ask for (texts/).

May import: data_prep.sources, extract, language, quality, quality_classifier, url_filter, engine.
"""

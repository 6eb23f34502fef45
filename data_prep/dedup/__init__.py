"""Deduplication of documents, lines and substrings."""

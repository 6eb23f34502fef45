"""Inspect a tokenizer: how it splits a text, and where it spends tokens, in the terminal and as a page."""

"""Inspect tokenizers: how they split a text and spend tokens, in the terminal and as a page."""

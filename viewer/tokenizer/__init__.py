"""Analyze tokenizers: how they spend tokens on texts, languages and documents."""

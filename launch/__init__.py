"""Thin scripts: parse the config, call lm or data_prep."""

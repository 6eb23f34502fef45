"""Mirrors lm/inspect."""

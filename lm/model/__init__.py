"""Transformer: layers, attention, decoder, key-value cache."""

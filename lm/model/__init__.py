"""Transformer: layers, attention, decoder, key-value cache; and its cost in parameters, FLOPs and memory."""

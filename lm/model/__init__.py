"""The transformer: layers, attention, the decoder, and its key-value cache."""

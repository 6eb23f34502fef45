"""Find tokenizers by name, and texts to compare them with."""

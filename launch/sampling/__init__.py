"""Sample from a run without changing it: continue prompts, streaming the texts, or interactively."""

"""The run folder: which files in it a run wrote, what may not be touched, and how it is begun from another run."""

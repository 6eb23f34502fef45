"""The run folder: the files that a run wrote, checks, and starting a run from another one."""

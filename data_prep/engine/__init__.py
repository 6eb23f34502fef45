"""The same work on many files: local processes or a Beam runner, with progress.

May import: data_prep.config.
"""

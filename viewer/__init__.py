"""The window: one HTML page to explore a run, served next to the API or exported as a file, such as a run's report.

May import: configs, data_prep, lm.
"""

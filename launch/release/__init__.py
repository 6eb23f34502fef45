"""Export a trained model and the documents to other programs' formats, and import models into a run folder.

May import: configs, lm.
"""

"""Data of a run for the window: lists of documents, one document, its raw page, its position in the batches."""

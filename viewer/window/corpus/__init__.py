"""What the window reads of a run's data: pages of documents, one document, its raw page, its place in the batches."""

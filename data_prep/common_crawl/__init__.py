"""Common Crawl as a source: streamed files of a crawl, or records selected by its index."""

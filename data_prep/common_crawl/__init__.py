"""Common Crawl as a source: files of a crawl, streamed or downloaded first, or records selected by its index."""

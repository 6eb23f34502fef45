"""Common Crawl as a source: whole files of a crawl, streamed or brought first, or records that its index chooses."""

"""Corpus of the demo: pages in files of the package index, pinned by hash, so no crawl has to be downloaded."""

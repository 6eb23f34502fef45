"""The demo's corpus: pages in files of the package index, pinned by their hashes, so that no crawl is downloaded."""

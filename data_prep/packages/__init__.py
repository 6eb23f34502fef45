"""Pages and lists out of pinned Python packages: the demo's corpus, with no crawl to download.

May import: data_prep.config, data_prep.warc.
"""

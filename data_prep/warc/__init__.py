"""Read and write web pages in WARC files (ISO 28500, version 1.1)."""

from data_prep.warc.pages import SKIPPED, read_pages, read_texts
from data_prep.warc.record import MAX_PAGE_BYTES
from data_prep.warc.writer import record_id, write_pages

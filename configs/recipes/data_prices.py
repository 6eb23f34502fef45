"""Prices of data processing and storage, for tests.bench.dump_cost. Edit this table to your prices.

Dollars, November 2026; rounded assumptions, not quotes. On demand, a core is one hardware thread of a general-purpose
machine with 4 GB per core; spot capacity often costs a third. Common Crawl is in AWS's us-east-1, where reading it is
free; elsewhere it is downloaded over HTTPS, free of charge too.
"""

DOLLARS_PER_CORE_HOUR = 0.04
DOLLARS_PER_GB_MONTH = 0.023
"""Object storage."""
DOLLARS_PER_GB_OUT = 0.09
"""Egress to the internet, of the finished corpus."""
DOLLARS_PER_MILLION_WRITES = 5.0
DOLLARS_PER_MILLION_READS = 0.4

"""What the data half costs, for tests.bench.dump_cost: edit this table to what you pay.

Dollars, November 2026, rounded assumptions and no quotation: on demand, a core is one hardware thread of a general
machine of 4 GB a core; spot capacity is often a third. Common Crawl lies in AWS's us-east-1, where reading it costs
nothing; elsewhere it comes over HTTPS, at no charge of theirs.
"""

DOLLARS_PER_CORE_HOUR = 0.04
DOLLARS_PER_GB_MONTH = 0.023
"""Of an object store."""
DOLLARS_PER_GB_OUT = 0.09
"""Out of a cloud, to the internet: of the finished corpus, if it leaves."""
DOLLARS_PER_MILLION_WRITES = 5.0
DOLLARS_PER_MILLION_READS = 0.4

"""Prices of chips, for launch.plan. Edit this table to your prices.

Dollars on demand, November 2026. TPUs: list prices of cloud.google.com/tpu/pricing (US), as quoted by public projects;
the page itself was not checked. Reserved and spot capacity often costs a half or a third.
"""

DOLLARS_PER_CHIP_HOUR = {
    "v5e": 1.20,
    "v5p": 4.20,
    "v6e": 2.70,
    "h100": 3.50,  # 672 dollars for 24 hours of eight: github.com/karpathy/llm.c, discussion 677
}

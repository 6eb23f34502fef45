"""What a chip costs, for launch.plan: edit this table to what you pay.

List prices on demand in dollars, without the host where it is sold apart; checked in November 2026 as far as a source
is named. Reserved and spot capacity is often a half or a third.
"""

DOLLARS_PER_CHIP_HOUR = {
    "v5e": 1.20,  # cloud.google.com/tpu/pricing, US regions
    "v6e": 2.70,  # the same
    "v5p": 4.20,  # the same
    "h100": 3.50,  # 672 dollars for 24 hours of eight: github.com/karpathy/llm.c, discussion 677
}

"""What a chip costs, for launch.plan: edit this table to what you pay.

Dollars on demand, November 2026. Those of TPUs are the list prices of cloud.google.com/tpu/pricing (US) as public
projects quote them; the page itself was not at hand. Reserved and spot capacity is often a half or a third.
"""

DOLLARS_PER_CHIP_HOUR = {
    "v5e": 1.20,
    "v5p": 4.20,
    "v6e": 2.70,
    "h100": 3.50,  # 672 dollars for 24 hours of eight: github.com/karpathy/llm.c, discussion 677
}

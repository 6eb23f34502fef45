"""Requirements of a run, before it starts: FLOPs, memory, the hardware's peak rates.

May import: lm.config, lm.model, lm.parallel.
"""

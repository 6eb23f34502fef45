"""What a run takes before it starts: FLOPs, memory, the hardware's peak.

May import: lm.config, lm.model, lm.parallel.
"""

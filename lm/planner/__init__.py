"""Plan a run on hardware that is not present: whether it fits, how fast it can be, and what it costs. Compiles the
actual training step for a named topology.

May import all other packages of lm.
"""

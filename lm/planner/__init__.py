"""Whether a run fits on hardware that is not here, how fast it can be, and what it costs: the true training step is
compiled for a named topology. May import all other rooms of lm.
"""

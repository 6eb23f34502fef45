"""One training run: the state, the step, the optimizer, and the loop with what happens beside it.

May import: every other room of lm but lm.formats.
"""

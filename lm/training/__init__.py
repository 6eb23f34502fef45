"""Training: state, step, optimizer, and the loop with its hooks (logging, evaluation, samples, checkpoints).

May import: every other room of lm except lm.formats.
"""

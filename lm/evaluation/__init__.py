"""Evaluation: table of evaluators, bits per byte compared with compressors, log-likelihoods, benchmark tasks, lm-eval,
and losses by token.

May import: lm.model, lm.parallel, lm.data, lm.tokenizer, lm.inference.
"""

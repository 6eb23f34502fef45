"""Evaluation: table of evaluators, bits per byte compared with compressors, log-likelihoods, benchmark tasks, and
lm-eval.

May import: lm.chat, lm.model, lm.parallel, lm.data, lm.tokenizer, lm.inference.
"""

"""Benchmarks by likelihood, one file each, with the prompts and the scoring of EleutherAI's lm-evaluation-harness
(lm-eval 0.4.13), and where their examples come from.

May import: lm.model, lm.tokenizer, lm.evaluation.
"""

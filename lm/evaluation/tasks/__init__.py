"""Likelihood-based benchmarks, with the prompts and the scoring of EleutherAI's lm-evaluation-harness
(lm-eval 0.4.13), and the sources of their examples.

May import: lm.model, lm.tokenizer, lm.evaluation.
"""

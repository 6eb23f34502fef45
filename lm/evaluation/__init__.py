"""What a model is worth: the table of evaluators, bits per byte beside compressors, log-likelihoods, tasks, lm-eval,
and losses token by token.

May import: lm.model, lm.parallel, lm.data, lm.tokenizer, lm.inference.
"""

"""Conversations: messages, templates that turn them into tokens, and tools that a model calls.

messages.py checks messages, template.py and templates.py render them in the environment of sandbox.py, tools.py has
the tools, reply.py reads what a model answered, assistant.py answers.

May import: lm.inference, lm.tokenizer, lm.corpus_index, lm.config, lm.errors.
"""

"""A model served over HTTP, by the protocol of OpenAI's completions.

limits (what a client may ask for), errors (what it is told), protocol (a body to requests), answers (events to JSON),
worker (the thread that owns the Engine), metrics, http (bodies, slow and lost clients), app (the routes), server (the
process). May import: lm.inference, lm.tokenizer.
"""

"""Serve a model over HTTP with the API of OpenAI's completions.

Modules: limits (of requests), errors (responses for clients), protocol (parse a body into requests), answers (events to
JSON), worker (the thread that owns the Engine), metrics, http (bodies, slow and disconnected clients), app (routes),
server (process). May import: lm.inference, lm.tokenizer.
"""

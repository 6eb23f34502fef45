"""Serve a model over HTTP with the API of OpenAI's completions.

Modules: fields (of a JSON body; errors for clients), protocol (limits; parse a body into requests), answers (events to
JSON), worker (the thread that owns the Engine), metrics, http (bodies, slow and disconnected clients), inspections, app
(routes), chat (conversations, with tools), server (process). May import: lm.chat, lm.inference, lm.tokenizer.
"""

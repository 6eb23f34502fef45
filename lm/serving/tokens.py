"""Tokenize and detokenize, with the routes and fields of vLLM's server, which lm-eval's local-completions calls if no
tokenizer is configured."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Executor

from starlette.requests import Request
from starlette.responses import Response

from lm.serving.errors import wrong
from lm.serving.fields import Fields, parse_object
from lm.serving.http import json_answer, read_body
from lm.serving.limits import Limits
from lm.serving.protocol import encode_text
from lm.tokenizer import Tokenizer


class TokenRoutes:
    """Routes for the tokenizer of the model."""

    def __init__(self, tokenizer: Tokenizer, limits: Limits, thread: Executor):
        """Bodies are parsed, and texts encoded and decoded, in `thread`, to keep the event loop free."""
        self.tokenizer, self.limits, self.thread = tokenizer, limits, thread

    async def in_thread[**P, R](self, function: Callable[P, R], *given: P.args, **named: P.kwargs) -> R:
        call = functools.partial(function, *given, **named)
        return await asyncio.get_running_loop().run_in_executor(self.thread, call)

    async def fields(self, request: Request, *known: str) -> Fields:
        """Parse the body. Raises ApiError 400 if it is not an object with these fields, and like `read_body`."""
        body = await read_body(request, self.limits.max_body_bytes, self.limits.read_seconds)
        return Fields(await self.in_thread(parse_object, body), ("model", *known))

    async def tokenize(self, request: Request) -> Response:
        """Return the ids of a text. A text that equals the name of a special token is that token, so that clients can
        look up its id; within other texts, such a name is plain text."""
        fields = await self.fields(request, "prompt", "add_special_tokens")
        text, tokenizer = fields.string("prompt", ""), self.tokenizer
        special = tokenizer.special_tokens.get(text)
        ids = [special]
        if special is None:
            with_bos = fields.boolean("add_special_tokens", True)
            ids = await self.in_thread(encode_text, text, tokenizer, with_bos)
        return json_answer({"tokens": ids, "count": len(ids), "max_model_len": self.limits.context})

    async def detokenize(self, request: Request) -> Response:
        fields = await self.fields(request, "tokens")
        ids = fields.get("tokens", [])
        if not isinstance(ids, list) or not all(type(id) is int for id in ids):
            raise wrong("tokens", ids, "a list of token ids", "invalid_type")
        if outside := [id for id in ids if not 0 <= id < self.tokenizer.vocab_size]:
            raise wrong("tokens", outside[0], f"of ids from 0 to {self.tokenizer.vocab_size - 1:,}")
        return json_answer({"prompt": await self.in_thread(self.tokenizer.decode, ids)})

    async def info(self, request: Request) -> Response:
        names = {id: name for name, id in self.tokenizer.special_tokens.items()}
        ends = sorted(self.tokenizer.eos_ids)
        return json_answer({
            "bos_token": names.get(self.tokenizer.bos_id), "eos_token": names.get(ends[0]) if ends else None,
            "vocab_size": self.tokenizer.vocab_size, "fingerprint": self.tokenizer.fingerprint,
        })  # fmt: skip

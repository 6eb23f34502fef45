"""Routes of the server: completions, models, tokens, health, metrics, inspections."""

import asyncio
import concurrent.futures
import hmac
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from lm.chat.tools import NO_TOOLS, Tools
from lm.serving.answers import ChoiceWriter, Usage, joined, to_json
from lm.serving.fields import ApiError, Fields, parse_object
from lm.serving.http import check_page, error_answer, json_answer, read_body, respond
from lm.serving.inspections import Inspection, InspectRoutes
from lm.serving.metrics import CallRecord, ServerMetrics, recorded
from lm.serving.protocol import CompletionCall, Limits, encode_text, parse_completion
from lm.serving.worker import EngineWorker
from lm.tokenizer import Tokenizer

SMALL_BODY = 8192
"""Bodies up to this size in bytes are parsed in the event loop; larger ones in a thread, to avoid blocking it."""
type Endpoint = Callable[[Request], Awaitable[Response]]


class CompletionServer:
    """HTTP server application: answers completion calls with an Engine."""

    def __init__(
        self,
        worker: EngineWorker,
        tokenizer: Tokenizer,
        model: str,
        step: int,
        limits: Limits,
        api_key: str = "",
        inspections: Sequence[Inspection] = (),
        pages: Mapping[str, Callable[[], Response]] | None = None,
        tools: Tools = NO_TOOLS,
    ):
        """`model` is the name under which the model is served, `step` the step of its checkpoint. `pages` is {path:
        function that returns the response}. If `api_key` is set, clients must send the key for all paths except /health
        and `pages`; so the pages must have no data of the run. `tools` are those that the server runs in
        conversations."""
        self.worker, self.tokenizer, self.model = worker, tokenizer, model
        self.limits = limits.for_tokenizer(tokenizer)
        self.key = api_key.encode()
        self.fingerprint, self.created = f"{model}-step-{step}", int(time.time())
        self.parsing = concurrent.futures.ThreadPoolExecutor(1, "parse")
        """Parses and encodes large bodies one at a time: does not block the event loop, and bounds memory."""
        self.metrics = ServerMetrics(worker.slots, lambda: worker.in_flight)
        self.inspect = InspectRoutes(inspections, self.limits)
        self.pages = pages or {}
        self.chat: Any = f"{model} has no chat template: it is a base model. Finetune it (launch.finetune)."
        """lm.serving.chat.ChatRoute, or why there is none."""
        if tokenizer.chat_template:
            from lm.chat.template import ChatTemplate, TemplateError  # needs jinja2, which base models do without
            from lm.serving.chat import ChatRoute

            try:
                template = ChatTemplate(tokenizer)
                self.chat = ChatRoute(worker, template, model, self.fingerprint, self.limits, self.metrics, tools)
            except TemplateError as error:
                self.chat = str(error)
        self.origins, self.hosts = frozenset[str](), frozenset[str]()

    def app(self, cors_origins: Sequence[str] = (), allowed_hosts: Sequence[str] = ()) -> Starlette:
        """Return the ASGI application. It accepts requests from web pages of `cors_origins`, and requests under the
        host names `allowed_hosts` (lm.serving.http.check_page)."""
        self.origins, self.hosts = frozenset(cors_origins), frozenset(allowed_hosts)
        routes = [
            Route("/health", self.health),
            Route("/metrics", self.guarded(self.show_metrics)),
            Route("/v1/models", self.guarded(self.models)),
            Route("/v1/models/{name:path}", self.guarded(self.one_model)),
            Route("/v1/completions", self.guarded(self.completions), methods=["POST"]),
            Route("/v1/chat/completions", self.guarded(self.chat_completions), methods=["POST"]),
            Route("/tokenize", self.guarded(self.tokenize), methods=["POST"]),
            Route("/detokenize", self.guarded(self.detokenize), methods=["POST"]),
            Route("/tokenizer_info", self.guarded(self.tokenizer_info)),
            Route("/v1/inspect", self.guarded(self.inspect.list)),
            Route("/v1/inspect/{name}", self.guarded(self.inspect.ask), methods=["POST"]),
            *(Route(path, self.shown(answer)) for path, answer in self.pages.items()),
        ]
        cors = Middleware(CORSMiddleware, allow_origins=list(cors_origins), allow_methods=["*"], allow_headers=["*"])
        return Starlette(
            routes=routes,
            middleware=[cors] if cors_origins else [],
            exception_handlers={ApiError: error_response, HTTPException: error_response, Exception: error_response},
        )

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """Wrap an endpoint: requests with a wrong API key or from pages of other origins are refused."""

        async def answer(request: Request) -> Response:
            check_page(request, self.origins, self.hosts)
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if self.key and not hmac.compare_digest(given.encode("utf-8", "replace"), self.key):
                raise ApiError(
                    401, "The API key is missing or wrong. Send it as `Authorization: Bearer KEY`.",
                    code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"},
                )  # fmt: skip
            try:
                return await endpoint(request)
            except ClientDisconnect:
                return Response(status_code=499)  # the client is gone

        return answer

    def shown(self, answer: Callable[[], Response]) -> Endpoint:
        """Wrap a public page, which needs no API key: only requests from pages of other origins are refused."""

        async def page(request: Request) -> Response:
            check_page(request, self.origins, self.hosts)
            return answer()

        return page

    async def health(self, request: Request) -> Response:
        if self.worker.failure:
            return json_answer({"status": "failed", "error": self.worker.failure}, 503)
        return json_answer({"status": "ok", "model": self.model, "in_flight": self.worker.in_flight})

    async def show_metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @property
    def card(self) -> dict[str, object]:
        return {
            "id": self.model, "object": "model", "created": self.created, "owned_by": "gristmill",
            "max_model_len": self.limits.context,
        }  # fmt: skip

    async def models(self, request: Request) -> Response:
        return json_answer({"object": "list", "data": [self.card]})

    async def one_model(self, request: Request) -> Response:
        if (name := request.path_params["name"]) != self.model:
            raise ApiError(404, f"There is no model {name!r} here, only {self.model!r}.", "model", "model_not_found")
        return json_answer(self.card)

    async def completions(self, request: Request) -> Response:
        with recorded(self.metrics) as record:
            body = await read_body(request, self.limits.max_body_bytes, self.limits.read_seconds)
            parse = lambda: parse_completion(body, self.model, self.tokenizer, self.limits)
            call = parse() if len(body) <= SMALL_BODY else await self.in_thread(parse)
            return await respond(request, Completions(self, call, record), record)

    async def chat_completions(self, request: Request) -> Response:
        if isinstance(self.chat, str):
            raise ApiError(400, f"{self.chat} Texts are continued by POST /v1/completions.", code="no_chat_template")
        return await self.chat.answer(request)

    async def in_thread[*A, R](self, function: Callable[[*A], R], *given: *A) -> R:
        return await asyncio.get_running_loop().run_in_executor(self.parsing, function, *given)

    async def token_fields(self, request: Request, *known: str) -> Fields:
        """Read a JSON body whose allowed fields are "model" and those in `known`. Raises ApiError 400 if the body is
        not such an object, 413 if it is too large, 408 if it arrives too slowly."""
        body = await read_body(request, self.limits.max_body_bytes, self.limits.read_seconds)
        return Fields(await self.in_thread(parse_object, body), ("model", *known))

    async def tokenize(self, request: Request) -> Response:
        """Answer POST /tokenize, as vLLM does; lm-eval's local-completions calls it if no tokenizer is configured.

        A text that equals a special token's name is encoded as that token, for clients that look up its id.
        """
        fields = await self.token_fields(request, "prompt", "add_special_tokens")
        text, tokenizer = fields.string("prompt", ""), self.tokenizer
        special = tokenizer.special_tokens.get(text)
        ids = [special]
        if special is None:
            with_bos = fields.boolean("add_special_tokens", True)
            ids = await self.in_thread(encode_text, text, tokenizer, with_bos)
        return json_answer({"tokens": ids, "count": len(ids), "max_model_len": self.limits.context})

    async def detokenize(self, request: Request) -> Response:
        fields = await self.token_fields(request, "tokens")
        ids = fields.token_ids("tokens", self.tokenizer.vocab_size)
        return json_answer({"prompt": await self.in_thread(self.tokenizer.decode, ids)})

    async def tokenizer_info(self, request: Request) -> Response:
        names = self.tokenizer.special_names
        ends = sorted(self.tokenizer.eos_ids)
        return json_answer({
            "bos_token": names.get(self.tokenizer.bos_id), "eos_token": names.get(ends[0]) if ends else None,
            "vocab_size": self.tokenizer.vocab_size, "fingerprint": self.tokenizer.fingerprint,
        })  # fmt: skip


class Completions:
    """The choices of one call of /v1/completions."""

    def __init__(self, server: CompletionServer, call: CompletionCall, record: CallRecord):
        self.server, self.call, self.record = server, call, record
        self.usage = Usage(sum(len(prompt.tokens) for prompt in call.prompts))
        self.running = server.worker.submit(call.requests)
        self.head = {
            "id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()),
            "model": server.model, "system_fingerprint": server.fingerprint,
        }  # fmt: skip

    async def accepted(self) -> None:
        await self.running.is_accepted()

    def cancel(self) -> None:
        self.server.worker.cancel(self.running)

    async def choices(self) -> AsyncGenerator[dict]:
        """Yield entries of `choices` as tokens arrive for any of them, and count the tokens."""
        prompts = [prompt for prompt in self.call.prompts for _ in range(self.call.n)]
        writers = [
            ChoiceWriter(index, prompt, self.call, self.server.tokenizer) for index, prompt in enumerate(prompts)
        ]
        async for index, event in self.running.events():
            self.usage.completion_tokens += len(event.tokens)
            self.record.saw(index, len(event.tokens), event.finish_reason is not None)
            yield writers[index].piece(event)

    async def whole(self) -> dict[str, Any]:
        pieces: list[list[dict]] = [[] for _ in self.running.requests]
        async for piece in self.choices():
            pieces[piece["index"]].append(piece)
        return self.head | {"choices": list(map(joined, pieces)), "usage": self.usage.as_json()}

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield the data of server-sent events. Raises ApiError if the Engine fails."""
        async for piece in self.choices():
            if piece["text"] or piece["finish_reason"] or piece["logprobs"]:
                yield to_json(self.head | {"choices": [piece], "usage": None})
        if self.call.include_usage:
            yield to_json(self.head | {"choices": [], "usage": self.usage.as_json()})


async def error_response(request: Request, error: Exception) -> Response:
    """Return the response to any error, in the format of OpenAI's API. Unexpected errors become status 500."""
    if isinstance(error, HTTPException):
        path = f"{request.method} {request.url.path}"
        message = {
            404: f"There is no {path} here; answer conversations by POST /v1/chat/completions, and continue texts "
            "by POST /v1/completions.",
            405: f"{path}: this method is not for this path.",
        }
        error = ApiError(error.status_code, message.get(error.status_code, error.detail), headers=error.headers)
    if not isinstance(error, ApiError):
        error = ApiError(500, "Internal error: a bug. The server's log has the traceback.", code="internal_error")
    return error_answer(error)

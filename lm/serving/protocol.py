"""Parse a body of POST /v1/completions into requests for the Engine.

Follows OpenAI's legacy completions (platform.openai.com/docs/api-reference/completions), plus top_k, min_p,
repetition_penalty and add_special_tokens. Unsupported options are rejected, never ignored.
"""

import dataclasses
import secrets
from collections.abc import Sequence

from lm.errors import InputError, UsageError, shown
from lm.inference.requests import MAX_TEMPERATURE, GenerationRequest, SamplingParams
from lm.serving.fields import ApiError, Fields, parse_object, wrong
from lm.tokenizer import Tokenizer

KNOWN = (
    "model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "n", "best_of",
    "stream", "stream_options", "logprobs", "echo", "stop", "seed", "presence_penalty", "frequency_penalty",
    "logit_bias", "suffix", "user", "add_special_tokens",
)  # fmt: skip
SHORTENED = 8
"""Factor by which normalization may shorten a text."""
SEEDS = 2**32
GOLDEN = 0x9E3779B9
"""2**32 / golden ratio: its multiples are spread evenly over all seeds (Knuth, The Art of Computer Programming 3,
6.4)."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the server. A request that exceeds one gets a 4xx error with the field, its value and the limit."""

    context: int
    """Tokens of prompt and completion together; also the maximum of max_tokens."""
    max_choices: int = 128
    """Texts per call: number of prompts times n."""
    max_logprobs: int = 20
    """Most likely tokens returned with each token."""
    max_stop: int = 16
    """Number of stop strings; OpenAI allows 4, but tasks of lm-eval have more."""
    max_stop_characters: int = 256
    """Length of a stop string."""
    max_body_bytes: int = 2 * 2**20
    """Size of the body of a request."""
    max_prompt_bytes: int = 2**31 - 1
    """UTF-8 bytes of one prompt."""
    max_queue: int = 256
    """Texts that may wait for a slot; further calls get 429."""
    max_inspections: int = 32
    """Calls of /v1/inspect that may wait; further ones get 429."""
    read_seconds: float = 30.0
    """Time for a client to send the headers of a request, and again for the body."""
    write_seconds: float = 60.0
    """Time for which a client may leave part of a streamed response unread."""
    max_connections: int = 1024
    """Open connections of all clients."""
    max_connections_per_peer: int = 256
    """Connections per client address; behind a proxy, all clients have its address."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("max_logprobs", "max_queue", "max_stop") else 1
            if not least <= value < 2**31:
                raise UsageError(f"{field.name} is {value}; it must be at least {least}, and below 2**31.")

    def for_tokenizer(self, tokenizer: Tokenizer) -> "Limits":
        """Return the limits with max_prompt_bytes lowered to the most bytes that the context can hold, so that longer
        prompts are refused before they are encoded. The limit allows for tokenizers that shorten a text by normalizing
        it."""
        longest = max(len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size))
        room = 1 if tokenizer.kind == "bpe" else SHORTENED
        most = min(self.max_prompt_bytes, self.context * longest * room)
        return dataclasses.replace(self, max_prompt_bytes=most)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt of a completion call, as tokens."""

    tokens: tuple[int, ...]
    """Tokens that the model reads."""
    headed: bool
    """Whether the server added BOS as the first token, which is not shown to the client."""

    @property
    def shown(self) -> tuple[int, ...]:
        """Tokens that the client sent: without the BOS that the server added."""
        return self.tokens[1:] if self.headed else self.tokens


@dataclasses.dataclass(frozen=True)
class CompletionCall:
    """Parsed body of POST /v1/completions."""

    prompts: tuple[Prompt, ...]
    params: SamplingParams
    n: int
    """Choices per prompt. Choice i of the response belongs to prompt i // n."""
    echo: bool
    stream: bool
    include_usage: bool

    @property
    def requests(self) -> list[GenerationRequest]:
        """Requests for the Engine, one per choice. Choices of a prompt differ only in their seeds (`seed_of`)."""
        return [
            GenerationRequest(
                prompt.tokens, dataclasses.replace(self.params, seed=(self.params.seed + number * GOLDEN) % SEEDS)
            )
            for prompt in self.prompts
            for number in range(self.n)
        ]


def parse_completion(body: bytes, model: str, tokenizer: Tokenizer, limits: Limits) -> CompletionCall:
    """Parse the body of POST /v1/completions. Raises ApiError 400 if it is malformed, exceeds a limit or is
    unsupported, 404 if it asks for another model than `model`."""
    fields = Fields(parse_object(body), KNOWN)
    check_model(fields, model)
    refuse_unsupported(fields)
    n = fields.integer("n", 1, 1, limits.max_choices)
    if (best_of := fields.integer("best_of", n, 1, limits.max_choices)) != n:
        raise wrong(
            "best_of", best_of, f"equal to n ({n}): the server returns all texts that it generates", "unsupported_value"
        )
    stream = fields.boolean("stream", False)
    echo = fields.boolean("echo", False)
    params = sampling_params(fields, echo, tokenizer, limits)
    prompts = read_prompts(fields, params, tokenizer, limits)
    if len(prompts) * n > limits.max_choices:
        raise ApiError(
            400, f"{len(prompts):,} prompts with n = {n} are {len(prompts) * n:,} texts; the limit is "
            f"{limits.max_choices:,} per call. Send several calls.",
            param="prompt" if n == 1 else "n", code="too_many_choices",
        )  # fmt: skip
    return CompletionCall(prompts, params, n, echo, stream, include_usage(fields, stream))


def check_model(fields: Fields, model: str) -> None:
    asked = fields.string("model", model)
    if asked != model:
        raise ApiError(
            404, f"There is no model {shown(asked)} here; this server has {model!r} (GET /v1/models).",
            param="model", code="model_not_found",
        )  # fmt: skip


def refuse_unsupported(fields: Fields) -> None:
    """Raise ApiError 400 for unsupported fields, unless their values have no effect."""
    for name in ("presence_penalty", "frequency_penalty"):
        if fields.number(name, 0.0, -2.0, 2.0):
            raise wrong(name, fields.get(name), "0: not supported; use repetition_penalty", "unsupported_value")
    bias = fields.get("logit_bias", {})
    if not isinstance(bias, dict):
        raise wrong("logit_bias", bias, "an object", "invalid_type")
    if bias:
        raise wrong("logit_bias", bias, "empty: logit_bias is not supported", "unsupported_value")
    if fields.string("suffix", ""):
        raise wrong(
            "suffix", fields.get("suffix"), "absent: this model does not fill in the middle of a text",
            "unsupported_value",
        )  # fmt: skip
    fields.string("user", "")


def include_usage(fields: Fields, stream: bool) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise wrong("stream_options", options, "an object", "invalid_type")
    if not stream:
        raise wrong("stream_options", options, "absent unless stream is true")
    inner = Fields(options, ("include_usage", "include_obfuscation"))
    inner.boolean("include_obfuscation", False)  # OpenAI's padding against eavesdroppers: not supported
    return inner.boolean("include_usage", False)


def sampling_params(
    fields: Fields, echo: bool, tokenizer: Tokenizer, limits: Limits, temperature: float = 1.0
) -> SamplingParams:
    """Parse the parameters of sampling; `temperature` is the default. Raises ApiError 400 for invalid ones."""
    logprobs = None
    if fields.get("logprobs") is not None:
        logprobs = fields.integer("logprobs", 0, 0, limits.max_logprobs)
    top_k = fields.integer("top_k", 0, -1, 2**31 - 1)  # other servers use -1 for all
    seed = fields.integer("seed", 0, 0, SEEDS - 1) if fields.get("seed") is not None else secrets.randbelow(SEEDS)
    given = fields.get("stop", [])
    stop = [given] if isinstance(given, str) else given
    if not isinstance(stop, list) or not all(isinstance(one, str) for one in stop):
        raise wrong("stop", given, "a string, or a list of strings", "invalid_type")
    if len(stop) > limits.max_stop:
        raise wrong("stop", given, f"at most {limits.max_stop} strings here, and these are {len(stop):,}")
    for one in stop:
        if not 0 < len(one) <= limits.max_stop_characters:
            raise wrong("stop", one, f"of 1 to {limits.max_stop_characters} characters")
    try:
        return SamplingParams(
            max_tokens=fields.integer("max_tokens", min(16, limits.context), 0, limits.context),
            temperature=fields.number("temperature", temperature, 0.0, MAX_TEMPERATURE),
            top_k=0 if top_k >= tokenizer.vocab_size else max(top_k, 0),
            top_p=fields.number("top_p", 1.0, 0.0, 1.0),
            min_p=fields.number("min_p", 0.0, 0.0, 1.0),
            repetition_penalty=fields.number("repetition_penalty", 1.0, 0.01, 100.0),
            stop=tuple(dict.fromkeys(stop)),
            seed=seed,
            logprobs=logprobs,
            prompt_logprobs=echo and logprobs is not None,
        )
    except UsageError as error:
        raise ApiError(400, str(error), param=str(error).partition(" ")[0], code="invalid_value") from None


def read_prompts(fields: Fields, params: SamplingParams, tokenizer: Tokenizer, limits: Limits) -> tuple[Prompt, ...]:
    """Return the prompts as tokens. BOS is added to each prompt that does not begin with BOS, since documents began
    with BOS in training. If tokenizer.add_bos is False, only empty prompts get BOS; if the field add_special_tokens is
    false, no prompt does. Raises ApiError 400 for an invalid prompt."""
    add, found = fields.boolean("add_special_tokens", True), []
    most = limits.context - (1 if params.max_tokens else 0)
    for one in split_prompts(fields.get("prompt", ""), limits):
        ids = encode(one, tokenizer, limits) if isinstance(one, str) else one
        headed = add and ids[:1] != [tokenizer.bos_id] and (tokenizer.add_bos or not ids)
        tokens = (tokenizer.bos_id, *ids) if headed else tuple(ids)
        if not tokens:
            raise ApiError(
                400, "prompt is empty, and add_special_tokens is false. Give at least one token to continue.",
                param="prompt", code="empty_prompt",
            )  # fmt: skip
        if len(tokens) > most:
            raise ApiError(
                400, f"A prompt is {len(tokens):,} tokens{' with its BOS' if headed else ''}; the context holds "
                f"{limits.context:,}{', including the completion' if params.max_tokens else ''}. Shorten it.",
                param="prompt", code="context_length_exceeded",
            )  # fmt: skip
        if outside := [id for id in tokens if not 0 <= id < tokenizer.vocab_size]:
            raise wrong("prompt", outside[0], f"of token ids from 0 to {tokenizer.vocab_size - 1:,}")
        found.append(Prompt(tokens, headed))
    return tuple(found)


def encode(text: str, tokenizer: Tokenizer, limits: Limits) -> list[int]:
    """Encode a prompt. The name of BOS at its start is encoded as BOS, because clients that decode ids send BOS that
    way; elsewhere, names of special tokens are plain text. Raises ApiError 400 if the prompt is too long."""
    if len(text) > limits.max_prompt_bytes or len(text.encode("utf-8", "replace")) > limits.max_prompt_bytes:
        raise ApiError(
            400, f"A prompt is {len(text):,} characters; the context is {limits.context:,} tokens, so a prompt has at "
            f"most {limits.max_prompt_bytes:,} bytes. Shorten it.",
            param="prompt", code="context_length_exceeded",
        )  # fmt: skip
    names = [name for name, id in tokenizer.special_tokens.items() if id == tokenizer.bos_id and text.startswith(name)]
    ids = encode_text(text.removeprefix("".join(names[:1])), tokenizer)
    return [tokenizer.bos_id, *ids] if names else ids


def encode_text(text: str, tokenizer: Tokenizer, as_prompt: bool = False, param: str = "prompt") -> list[int]:
    """Encode a text, the field `param`. With `as_prompt`, BOS is added first if tokenizer.add_bos is True or the text
    is empty. Raises ApiError 400 if the tokenizer cannot encode it (unknown character, or a split pattern that
    backtracks too long)."""
    try:
        return tokenizer.prompt_ids(text) if as_prompt else tokenizer.encode(text)
    except InputError as error:
        raise ApiError(400, str(error), param=param, code="invalid_value") from error


def split_prompts(given: object, limits: Limits) -> Sequence[str | list[int]]:
    """Return the field `prompt` as a list of prompts, each text or token ids. Raises ApiError 400 for other types."""
    are_ids = lambda one: isinstance(one, list) and all(type(id) is int for id in one)
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        if len(given) > limits.max_choices and not are_ids(given):
            raise wrong("prompt", f"{len(given):,} prompts", f"at most {limits.max_choices:,} here")
        if are_ids(given):
            return [given]
        if all(isinstance(one, str) for one in given) or all(are_ids(one) for one in given):
            return given
    raise wrong("prompt", given, "a string, a list of strings, a list of token ids, or a list of such lists, not empty",
                "invalid_type")  # fmt: skip

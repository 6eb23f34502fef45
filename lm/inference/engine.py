"""Continuous batching: requests join and leave the slots of one running batch, round by round.

Guarantee: the tokens of a request, and the bits of their log-probabilities, equal those that the same engine (with the
same slots, context and decode_steps) returns for this request alone, whatever else is in the batch. Therefore prompts
are read in a fixed number of rows, padded to a length that depends only on the prompt, and tokens are drawn for all
slots at once, including free ones, because XLA's matrix products round differently for another number of rows. Another
number of slots gives the same text, except for ties within rounding.
"""

import collections
import dataclasses
import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lm.config import ModelConfig
from lm.errors import UsageError
from lm.inference import steps
from lm.inference.devices import mesh_for_rows, moved_onto
from lm.inference.requests import (
    Completion,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    QueueFull,
    SamplingParams,
    TokenLogprob,
)  # fmt: skip
from lm.inference.sampling import Drawn, Sampling
from lm.inference.text_stream import TextStream
from lm.model.transformer import Transformer, check_cache
from lm.parallel import devices_of, on_host, traced_on
from lm.tokenizer.base import Tokenizer

LEAST_BUCKET = 16
"""Minimum padded prompt length in tokens; longer prompts are padded to a power of two."""
MOST_ALTERNATIVES = 20
"""Maximum number of most likely tokens that can be returned with each token."""


@dataclasses.dataclass
class Draft:
    """Output of a request collected so far, for its next event or its completion."""

    tokens: list[int] = dataclasses.field(default_factory=list)
    """Ids of the new tokens."""
    text: list[str] = dataclasses.field(default_factory=list)
    logprobs: list[TokenLogprob] = dataclasses.field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None

    def add(self, event: GenerationEvent) -> None:
        """Append the tokens, text and log-probabilities of an event."""
        self.tokens += event.tokens
        self.text.append(event.text)
        self.logprobs += event.logprobs
        self.prompt_logprobs += event.prompt_logprobs
        self.finish_reason = event.finish_reason

    def event(self, id: int) -> GenerationEvent:
        return GenerationEvent(
            id, tuple(self.tokens), "".join(self.text), tuple(self.logprobs), self.prompt_logprobs, self.finish_reason
        )

    def completion(self) -> Completion:
        assert self.finish_reason is not None
        text = "".join(self.text)
        return Completion(text, tuple(self.tokens), tuple(self.logprobs), self.prompt_logprobs, self.finish_reason)


class Running:
    """State of a request from its submission to its last event."""

    def __init__(self, id: int, request: GenerationRequest, tokenizer: Tokenizer, context: int):
        self.id, self.request, self.params = id, request, request.params
        self.limit = min(request.params.max_tokens, context - len(request.prompt))
        """Maximum number of new tokens."""
        self.scheduled = 0
        """Number of new tokens whose computation has started."""
        self.count = 0
        """Number of new tokens that were returned."""
        self.stream = TextStream(tokenizer, request.params.stop)
        self.eos_ids = tokenizer.eos_ids
        self.finish_reason: FinishReason | None = None
        self.scores: Any = None
        """Result of lm.inference.steps.score for the prompt, if requested and not returned yet."""

    def take(self, token: int, logprob: TokenLogprob | None, draft: Draft) -> None:
        """Append a newly drawn token to `draft`, and set finish_reason if it ends the text."""
        if token in self.eos_ids:
            if logprob is not None:
                draft.logprobs.append(logprob)
            self.finish_reason = "stop"
            draft.text.append(self.stream.finish())
        else:
            self.count += 1
            draft.tokens.append(token)
            draft.text.append(self.stream.push(token))
            if logprob is not None:
                draft.logprobs.append(logprob)
            if not self.stream.stopped and self.count == self.limit:
                self.finish_reason = "length"
                draft.text.append(self.stream.finish())
            if self.stream.stopped:
                self.finish_reason = "stop"
        draft.finish_reason = self.finish_reason

    def logprob(self, token: Any, logprob: Any, top: np.ndarray, top_logprobs: np.ndarray) -> TokenLogprob:
        """Build the TokenLogprob of a token, with as many of the most likely tokens as the request asks for."""
        many = self.params.logprobs or 0
        pairs = zip(top[:many].tolist(), top_logprobs[:many].tolist(), strict=True)
        return TokenLogprob(int(token), float(logprob), tuple(pairs))

    def prompt_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Return the log-probabilities of the prompt's tokens, if requested and not returned before; else ()."""
        if self.scores is None:
            return ()
        prompt = self.request.prompt
        found, self.scores = [on_host(one)[: len(prompt) - 1] for one in self.scores], None
        return TokenLogprob(prompt[0], None), *map(self.logprob, prompt[1:], *found)


@dataclasses.dataclass(frozen=True)
class Round:
    """Result of one call of `decode` or `prefill`, which the devices may still be computing."""

    drawn: Drawn | None
    """Arrays with first axes (step, column); None if only a prompt was scored."""
    columns: tuple[tuple[int, Running], ...]
    """(column, its request)."""
    steps: int
    """Tokens drawn per request: 1 by `prefill`; 0 if only a prompt was scored."""
    scored: Running | None = None
    """The request, if it needs only the scores of its prompt."""


class Engine:
    """Text generation with continuous batching: requests join and leave the slots of one running batch.

    `submit` and `cancel` may be called from any thread, all other methods from one thread. If the model is sharded over
    several processes, all of them must make the same calls.
    """

    def __init__(
        self,
        model: Transformer,
        config: ModelConfig,
        tokenizer: Tokenizer,
        *,
        slots: int,
        context: int | None = None,
        mesh: Mesh | None = None,
        decode_steps: int = 8,
        max_queue: int | None = None,
    ):
        """`slots` requests are generated concurrently, each with at most `context` tokens of prompt and new text (by
        default config.context_length); each round draws `decode_steps` tokens for each of them. `mesh` is the mesh that
        the model is sharded over; its devices share the slots. The model may come from
        lm.inference.weights.for_inference. Raises UsageError for invalid numbers, and for a block whose cache is
        unknown."""
        check_cache(config)
        context = config.context_length if context is None else context
        if slots < 1 or decode_steps < 1 or not 2 <= context <= config.context_length:
            raise UsageError(
                f"slots = {slots} and decode_steps = {decode_steps} must be at least 1, and context = {context} from 2 "
                f"to the model's context_length = {config.context_length}."
            )
        mesh = mesh_of(model) if mesh is None else mesh
        if mesh is not None:
            rows_mesh = mesh_for_rows(mesh, slots)
            model, mesh = (model if rows_mesh is mesh else moved_onto(model, rows_mesh)), rows_mesh
        self.model, self.tokenizer, self.context, self.max_queue = model, tokenizer, context, max_queue
        symbols = tokenizer.vocab_size
        alternatives = min(MOST_ALTERNATIVES, symbols)
        config = dataclasses.replace(config, scan_layers=model.is_stacked)
        self.shape = steps.Shape(config, slots, context, symbols, alternatives, decode_steps)
        self.prefill_rows = 1 if mesh is None else min(devices_of("batch", mesh), slots)
        on_mesh = (lambda function: function) if mesh is None else (lambda function: traced_on(mesh, function))
        self.start, self.prefill = on_mesh(steps.start), on_mesh(steps.prefill)
        self.decode, self.score = on_mesh(steps.decode), on_mesh(steps.score)
        self.compile = on_mesh(lambda function, *arguments: function.lower(*arguments).compile())
        self.state = None
        self.places: list[Running | None] = [None] * slots
        self.rounds: collections.deque[Round] = collections.deque()
        """Rounds that are computed or being computed, but not read yet."""
        self.lock = threading.Lock()
        self.numbers = itertools.count()
        self.queue: collections.OrderedDict[int, Running] = collections.OrderedDict()
        self.open: dict[int, Running] = {}
        """Requests whose last event has not been returned."""
        self.cancelled: list[int] = []

    def submit(self, request: GenerationRequest) -> int:
        """Queue a request and return its request_id. Raises UsageError if the prompt is empty, too long or has invalid
        token ids, and QueueFull if `max_queue` requests are waiting."""
        self.check(request)
        with self.lock:
            if self.max_queue is not None and len(self.queue) >= self.max_queue:
                raise QueueFull(
                    f"{len(self.queue):,} requests are waiting, and max_queue = {self.max_queue}. Try again later."
                )
            running = Running(next(self.numbers), request, self.tokenizer, self.context)
            self.queue[running.id] = self.open[running.id] = running
        return running.id

    def check(self, request: GenerationRequest) -> None:
        """Raise UsageError if the prompt is empty, too long or has invalid ids, or params.logprobs is too large."""
        length, params = len(request.prompt), request.params
        if not length:
            raise UsageError("The prompt is empty; give at least one token, such as BOS.")
        most = self.context if params.max_tokens == 0 else self.context - 1
        if length > most:
            raise UsageError(
                f"The prompt is {length:,} tokens; the context holds {self.context:,}, including new tokens. "
                "Shorten it."
            )
        symbols = self.shape.symbols
        if wrong := [id for id in request.prompt if not 0 <= id < symbols]:
            raise UsageError(
                f"The prompt has the token id {wrong[0]}; ids of this vocabulary range from 0 to {symbols - 1}."
            )
        if (params.logprobs or 0) > self.shape.alternatives:
            raise UsageError(
                f"logprobs is {params.logprobs}; at most {self.shape.alternatives} alternatives per token are returned."
            )

    def cancel(self, request_id: int) -> None:
        """Cancel a request unless it has finished. Its last event, in the next round, has finish_reason "cancelled"."""
        with self.lock:
            if request_id in self.open:
                self.cancelled.append(request_id)

    def warm_up(self, length: int) -> None:
        """Compile the programs that a first prompt of `length` tokens needs, in two threads."""
        slots = self.shape.slots
        if self.state is None:
            self.state = self.start(self.model, self.shape)
        rows = np.zeros((self.prefill_rows, bucket(length, self.context)), np.int32)
        read = rows, rows[:, 0], rows[:, 0], Sampling.of([SamplingParams()] * self.prefill_rows)
        drawn = np.zeros(slots, bool), Sampling.of([SamplingParams()] * slots), np.int32(1)
        with ThreadPoolExecutor(2) as pool:
            begun = [
                pool.submit(self.compile, function, self.model, self.shape, self.state, *arguments)
                for function, arguments in ((steps.prefill, read), (steps.decode, drawn))
            ]
            for one in begun:
                one.result()

    @property
    def has_work(self) -> bool:
        """Whether requests are waiting or running, so that `step` has something to do."""
        with self.lock:
            return bool(self.open)

    def step(self) -> list[GenerationEvent]:
        """Run one round and return the new output: read waiting prompts into free slots, start a call that draws up to
        decode_steps tokens for all slots, and meanwhile fetch the tokens of the previous round.

        So the end of a text is noticed one round late, and tokens drawn after it are dropped. The end by max_tokens is
        known in advance and frees the slot at once.
        """
        drafts: dict[int, Draft] = {}
        self.drop_cancelled(drafts)
        self.admit(drafts)
        under_way = self.dispatch()
        while len(self.rounds) > under_way:
            self.read(self.rounds.popleft(), drafts)
        with self.lock:
            for id, draft in drafts.items():
                if draft.finish_reason is not None:
                    del self.open[id]
        return [draft.event(id) for id, draft in drafts.items()]

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GenerationEvent]:
        """Run the requests and yield their events. Ids rise in the order of `requests`. Raises UsageError if a prompt
        is empty, too long or has invalid token ids, before anything is computed."""
        for request in requests:
            self.check(request)
        waiting = collections.deque(requests)
        while waiting or self.has_work:
            while waiting and (self.max_queue is None or len(self.queue) < self.max_queue):
                self.submit(waiting.popleft())
            yield from self.step()

    def complete(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Run the requests and return their completions, in order. Raises UsageError if a prompt is empty, too long or
        has invalid token ids, before anything is computed."""
        drafts: dict[int, Draft] = {}
        for event in self.generate(requests):
            drafts.setdefault(event.request_id, Draft()).add(event)
        return [drafts[id].completion() for id in sorted(drafts)]

    def close(self) -> None:
        """Drop all requests and free the memory of the slots."""
        with self.lock:
            self.queue.clear()
            self.open.clear()
            self.cancelled.clear()
        self.rounds.clear()
        self.places = [None] * self.shape.slots
        self.state = None

    def drop_cancelled(self, drafts: dict[int, Draft]) -> None:
        with self.lock:
            ids, self.cancelled = self.cancelled, []
            found = [self.open[id] for id in ids if id in self.open]
            for running in found:
                self.queue.pop(running.id, None)
        for running in found:
            running.finish_reason = "cancelled"
            drafts[running.id] = Draft(finish_reason="cancelled")
            self.free(running)

    def free(self, running: Running) -> None:
        for place, there in enumerate(self.places):
            if there is running:
                self.places[place] = None

    def next_waiting(self, room: bool) -> Running | None:
        """Remove and return the request that has waited longest. None if no request waits, or if this request needs a
        slot and none is free (`room` is False)."""
        with self.lock:
            for id, running in self.queue.items():
                if room or not running.limit:
                    del self.queue[id]
                    return running
                break
        return None

    def admit(self, drafts: dict[int, Draft]) -> None:
        """Give free slots to waiting requests and start to read their prompts, grouped by padded length. Prompts whose
        log-probabilities are requested are scored too."""
        by_length: dict[int, list[tuple[int, Running]]] = {}
        places = [place for place, there in enumerate(self.places) if there is None]
        for _ in range(self.shape.slots):
            running = self.next_waiting(bool(places))
            if running is None:
                break
            prompt = running.request.prompt
            if running.params.prompt_logprobs:
                tokens_1T = padded([prompt], bucket(len(prompt), self.context))
                running.scores = self.score(self.model, self.shape.symbols, self.shape.alternatives, tokens_1T)
            if running.limit:
                place = places.pop(0)
                self.places[place] = running
                by_length.setdefault(bucket(len(prompt), self.context), []).append((place, running))
            else:
                self.rounds.append(Round(None, (), 0, running))
        for length, group in by_length.items():
            for rows in itertools.batched(group, self.prefill_rows):
                self.read_prompts(length, rows)

    def read_prompts(self, length: int, rows: Sequence[tuple[int, Running]]) -> None:
        """Start to read prompts, padded to `length`, into slots. `rows` are (slot, its request) pairs, at most
        `prefill_rows`; if there are fewer, the last pair is repeated."""
        filled = [*rows, *[rows[-1]] * (self.prefill_rows - len(rows))]
        prompts = [running.request.prompt for _, running in filled]
        lengths_R = np.array([len(prompt) for prompt in prompts], np.int32)
        places_R = np.array([place for place, _ in filled], np.int32)
        sampling = Sampling.of([running.params for _, running in filled])
        if self.state is None:
            self.state = self.start(self.model, self.shape)
        self.state, drawn = self.prefill(
            self.model, self.shape, self.state, padded(prompts, length), lengths_R, places_R, sampling
        )
        columns = tuple((row, running) for row, (_, running) in enumerate(rows))
        self.rounds.append(Round(drawn, columns, 1))
        for place, running in rows:
            self.scheduled(place, running, 1)

    def scheduled(self, place: int, running: Running, tokens: int) -> None:
        """Record that `tokens` more tokens are being drawn in slot `place`. Frees it if these are the last."""
        running.scheduled += tokens
        if running.scheduled >= running.limit:
            self.places[place] = None

    def dispatch(self) -> bool:
        """Start a call that draws tokens for all slots. Return False if no slot is in use."""
        columns = tuple((place, running) for place, running in enumerate(self.places) if running is not None)
        if not columns:
            return False
        number = min(self.shape.decode_steps, max(running.limit - running.scheduled for _, running in columns))
        active_B = np.array([running is not None for running in self.places])
        greedy = SamplingParams(temperature=0.0)
        sampling = Sampling.of([greedy if running is None else running.params for running in self.places])
        self.state, drawn = self.decode(self.model, self.shape, self.state, active_B, sampling, np.int32(number))
        self.rounds.append(Round(drawn, columns, number))
        for place, running in columns:
            self.scheduled(place, running, number)
        return True

    def read(self, round: Round, drafts: dict[int, Draft]) -> None:
        """Wait for the tokens of a round, and add them to the drafts, {request id: Draft}."""
        if round.scored is not None:
            draft = drafts.setdefault(round.scored.id, Draft())
            if round.scored.finish_reason is None:
                draft.prompt_logprobs += round.scored.prompt_logprobs()
                draft.finish_reason = round.scored.finish_reason = "length"
            return
        with_logprobs = any(running.params.logprobs is not None for _, running in round.columns)
        assert round.drawn is not None
        token_NB = on_host(round.drawn.token_B)
        others = [on_host(one) for one in round.drawn[1:]] if with_logprobs else None
        for column, running in round.columns:
            if running.finish_reason is not None:
                continue
            draft = drafts.setdefault(running.id, Draft())
            draft.prompt_logprobs += running.prompt_logprobs()
            for number in range(round.steps):
                logprob = None
                if running.params.logprobs is not None and others is not None:
                    logprob = running.logprob(token_NB[number, column], *(one[number, column] for one in others))
                running.take(int(token_NB[number, column]), logprob, draft)
                if running.finish_reason is not None:
                    self.free(running)
                    break


def bucket(length: int, context: int) -> int:
    """Return the padded length of a prompt of `length` tokens: a power of two, so that few programs are compiled."""
    return min(max(1 << (length - 1).bit_length(), LEAST_BUCKET), context)


def padded(prompts: Sequence[Sequence[int]], length: int) -> np.ndarray:
    rows = np.zeros((len(prompts), length), np.int32)
    for row, prompt in zip(rows, prompts, strict=True):
        row[: len(prompt)] = prompt
    return rows


def mesh_of(model: Transformer) -> Mesh | None:
    """Return the mesh that the model is sharded over; None if it is on one device."""
    sharding = getattr(jax.tree.leaves(model)[0], "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.mesh.size == 1 or not isinstance(sharding.mesh, Mesh):
        return None
    return sharding.mesh

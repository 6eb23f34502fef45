"""The host's side of a batch: how far each request has come, what is on its way to be read, and what is told next."""

import dataclasses
from typing import Any

import numpy as np

from lm.inference.requests import Completion, FinishReason, GenerationEvent, GenerationRequest, TokenLogprob
from lm.inference.sampling import Drawn
from lm.inference.text_stream import TextStream
from lm.parallel import on_host
from lm.tokenizer.base import Tokenizer


@dataclasses.dataclass
class Draft:
    """What will be told of a request."""

    tokens: list[int] = dataclasses.field(default_factory=list)
    text: list[str] = dataclasses.field(default_factory=list)
    logprobs: list[TokenLogprob] = dataclasses.field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None

    def add(self, event: GenerationEvent) -> None:
        """Appends what the event has."""
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
    """A request from its submission to its last event."""

    def __init__(self, id: int, request: GenerationRequest, tokenizer: Tokenizer, context: int):
        self.id, self.request, self.params = id, request, request.params
        self.limit = min(request.params.max_tokens, context - len(request.prompt))
        """New tokens at most."""
        self.scheduled = 0
        """New tokens of which the computation has begun."""
        self.count = 0
        """New tokens that were told."""
        self.stream = TextStream(tokenizer, request.params.stop)
        self.eos_ids = tokenizer.eos_ids
        self.finish_reason: FinishReason | None = None
        self.scores: Any = None
        """What lm.inference.steps.score makes of the prompt, where that was asked for and is not told yet."""

    def take(self, token: int, logprob: TokenLogprob | None, draft: Draft) -> None:
        """Adds the next token to the draft; sets finish_reason where it is the last."""
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
        """The token with as many alternatives as were asked for."""
        many = self.params.logprobs or 0
        pairs = zip(top[:many].tolist(), top_logprobs[:many].tolist(), strict=True)
        return TokenLogprob(int(token), float(logprob), tuple(pairs))

    def prompt_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Those of the prompt, once, where they were asked for."""
        if self.scores is None:
            return ()
        prompt = self.request.prompt
        found, self.scores = [on_host(one)[: len(prompt) - 1] for one in self.scores], None
        return TokenLogprob(prompt[0], None), *map(self.logprob, prompt[1:], *found)


@dataclasses.dataclass(frozen=True)
class Round:
    """What a call has drawn, or is drawing."""

    drawn: Drawn | None
    """Its arrays have the axes of steps and of columns first; None where a prompt was scored alone."""
    columns: tuple[tuple[int, Running], ...]
    """Which column is whose."""
    steps: int
    scored: Running | None = None
    """The request, where it asks for nothing but the scores of its prompt."""

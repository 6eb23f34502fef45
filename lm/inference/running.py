"""Host state of a running batch: progress of the requests, rounds to be read, and drafts of events."""

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
    """Accumulates the next event, or the completion, of a request."""

    tokens: list[int] = dataclasses.field(default_factory=list)
    text: list[str] = dataclasses.field(default_factory=list)
    logprobs: list[TokenLogprob] = dataclasses.field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None

    def add(self, event: GenerationEvent) -> None:
        """Append the contents of an event."""
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
        """Add the next token to the draft; set finish_reason if it is the last."""
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
        """Return the token with the requested number of alternatives."""
        many = self.params.logprobs or 0
        pairs = zip(top[:many].tolist(), top_logprobs[:many].tolist(), strict=True)
        return TokenLogprob(int(token), float(logprob), tuple(pairs))

    def prompt_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Return the log-probabilities of the prompt once, if requested."""
        if self.scores is None:
            return ()
        prompt = self.request.prompt
        found, self.scores = [on_host(one)[: len(prompt) - 1] for one in self.scores], None
        return TokenLogprob(prompt[0], None), *map(self.logprob, prompt[1:], *found)


@dataclasses.dataclass(frozen=True)
class Round:
    """Result of a call, maybe still being computed."""

    drawn: Drawn | None
    """Arrays with first axes (step, column); None if only a prompt was scored."""
    columns: tuple[tuple[int, Running], ...]
    """(column, its request)."""
    steps: int
    scored: Running | None = None
    """The request, if it needs only the scores of its prompt."""

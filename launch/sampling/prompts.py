"""Continue prompts, printing the texts in order while they are generated."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from configs.experiment import Experiment
from launch.sampling.options import Options
from launch.stages.processes import process_index
from launch.stages.trained import leave_together, load_trained, say
from lm.errors import UsageError, for_terminal
from lm.inference.requests import GenerationEvent, GenerationRequest, TokenLogprob

if TYPE_CHECKING:
    from lm.inference.engine import Engine
    from lm.tokenizer import Tokenizer

MOST_SLOTS = 16
"""Maximum number of texts to generate at once."""
STREAMED_STEPS = 4
"""Tokens to generate between two outputs."""


class Text(NamedTuple):
    """A requested text."""

    title: str
    prompt: str
    request: GenerationRequest


def write(text: str) -> None:
    """Print without a line end, in process 0 only."""
    if process_index() == 0:
        sys.stdout.write(for_terminal(text))
        sys.stdout.flush()


def continue_prompts(experiment: Experiment, workdir: Path, options: Options, prompts: Sequence[str]) -> None:
    """Print a continuation of each prompt at each temperature. Raises like `load_trained`, and UsageError for a prompt
    that leaves no room and for invalid options."""
    if options.n < 1:
        raise UsageError(f"--n is {options.n}; it must be at least 1.")
    config = experiment.sample
    temperatures = config.temperatures if options.temperature is None else (options.temperature,)
    first_seed = config.seed if options.seed is None else options.seed
    for temperature in temperatures:  # validate before loading the model
        options.params(temperature, options.max_tokens or 0, first_seed + options.n - 1)
    count = len(prompts) * len(temperatures) * options.n
    slots = 1 << (min(count, MOST_SLOTS) - 1).bit_length()
    tokens = min(experiment.model.context_length, config.tokens + (options.max_tokens or 0))
    run = load_trained(experiment, workdir, slots, tokens, "the number of prompts", options.step, options.weights)
    texts = []
    for prompt in prompts:
        row, most = tokens_of(run.tokenizer, prompt, experiment, options)
        for temperature in temperatures:
            for seed in range(first_seed, first_seed + options.n):
                title = f"{prompt!r} at temperature {temperature:g}" + (f", seed {seed}" if options.n > 1 else "")
                request = GenerationRequest(tuple(row), options.params(temperature, most, seed))
                texts.append(Text(title, prompt, request))
    from lm.inference.engine import Engine, bucket

    longest = max(len(text.request.prompt) + text.request.params.max_tokens for text in texts)
    engine = Engine(
        run.model, experiment.model, run.tokenizer, slots=slots, mesh=run.mesh, decode_steps=STREAMED_STEPS,
        context=bucket(longest, experiment.model.context_length),
    )  # fmt: skip
    engine.warm_up(len(texts[0].request.prompt))
    print_in_order(engine, run.tokenizer, texts)
    say("")
    leave_together()


def tokens_of(tokenizer: "Tokenizer", prompt: str, experiment: Experiment, options: Options) -> tuple[list[int], int]:
    """Return (BOS and prompt as ids, maximum new tokens). Raises UsageError if there is no room for new tokens."""
    from lm.inference.requests import check_prompt

    if options.max_tokens is None:
        row = check_prompt(tokenizer, prompt, experiment.sample.tokens)
        return row, experiment.sample.tokens - len(row)
    row = check_prompt(
        tokenizer, prompt, experiment.model.context_length, "That is the model's context: shorten the prompt."
    )
    return row, min(options.max_tokens, experiment.model.context_length - len(row))


def print_in_order(engine: "Engine", tokenizer: "Tokenizer", texts: Sequence[Text]) -> None:
    """Print each text under its title: the first unfinished one is streamed, later ones are buffered."""
    numbers = {engine.submit(text.request): text for text in texts}
    events: dict[int, list[GenerationEvent]] = {id: [] for id in numbers}
    for id, text in numbers.items():
        say(f"\n--- {text.title}")
        write(text.prompt)
        told, ended = 0, False
        while not ended:
            for event in engine.step() if told == len(events[id]) else ():
                events[event.request_id].append(event)
            for event in events[id][told:]:
                write(event.text)
                ended = event.finish_reason is not None
            told = len(events[id])
        say("")
        if text.request.params.logprobs is not None:
            say(for_terminal(logprob_lines(tokenizer, (one for event in events[id] for one in event.logprobs))))
        del events[id]


def logprob_lines(tokenizer: "Tokenizer", logprobs: Iterable[TokenLogprob]) -> str:
    """One line per token: its log-probability, the token, and the most likely tokens at its position with theirs."""
    shown = lambda id: repr(tokenizer.decode([id]))
    lines = []
    for one in logprobs:
        others = "  ".join(f"{shown(id)} {value:.3f}" for id, value in one.top)
        lines.append(f"{one.logprob:9.3f}  {shown(one.token):<20} {others}".rstrip())
    return "\n".join(lines)

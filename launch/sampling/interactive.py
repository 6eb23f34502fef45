"""Interactive sampling: type the beginning of a text, and the model streams a continuation; commands change
settings."""

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.experiment import Experiment
from launch.sampling.options import Options
from launch.sampling.prompts import STREAMED_STEPS, logprob_lines, write
from launch.stages.processes import process_count
from launch.stages.trained import load_trained, say
from lm.errors import UsageError, for_terminal, shown
from lm.inference.requests import GenerationRequest, SamplingParams, TokenLogprob

if TYPE_CHECKING:
    from lm.inference.engine import Engine
    from lm.tokenizer import Tokenizer

HELP = """A line is the beginning of a document; what the model continues it with follows. Ctrl-C ends a text.
  /temperature 0.8    changes a setting; others: /top-k, /top-p, /min-p, /repetition-penalty, /max-tokens, /seed and
                      /logprobs, which alone shows none
  /stop END           ends texts before END; /stop alone ends them there no more
  /settings           shows the settings
  /quit               ends the program; so does Ctrl-D"""
SETTINGS: dict[str, type] = {
    "temperature": float, "top_k": int, "top_p": float, "min_p": float, "repetition_penalty": float, "max_tokens": int,
    "seed": int, "logprobs": int,
}  # fmt: skip


def changed(params: SamplingParams, command: str) -> SamplingParams:
    """Apply a command such as "/temperature 0.8" to `params`. Raises UsageError for an invalid one."""
    name, _, value = command.removeprefix("/").partition(" ")
    field, value = name.replace("-", "_"), value.strip()
    if field == "stop":
        return dataclasses.replace(params, stop=(*params.stop, value) if value else ())
    if field not in SETTINGS:
        raise UsageError(f"There is no command {shown('/' + name)}. /help lists them.")
    if field == "logprobs" and not value:
        return dataclasses.replace(params, logprobs=None)
    try:
        number = SETTINGS[field](value)
    except ValueError:
        raise UsageError(f"/{name} wants a number, and is given {shown(value)}.") from None
    return dataclasses.replace(params, **{field: number})


def settings(params: SamplingParams) -> str:
    """Text of /settings."""
    values: dict[str, Any] = {name: getattr(params, name) for name in SETTINGS} | {"stop": params.stop or None}
    return "\n".join(f"  {name.replace('_', '-'):<19} {value}" for name, value in values.items())


class Interrupts:
    """Records whether Ctrl-C was pressed."""

    def __init__(self):
        self.pressed = False

    @contextlib.contextmanager
    def noted(self) -> Generator[None]:
        """Context in which the first Ctrl-C is recorded, and a second one ends the program."""

        def note(*_: object) -> None:
            if self.pressed:
                raise KeyboardInterrupt
            self.pressed = True

        self.pressed, before = False, signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class Conversation:
    """Reads lines and writes texts. The seed increases by one with each text."""

    def __init__(self, engine: "Engine", tokenizer: "Tokenizer", params: SamplingParams):
        self.engine, self.tokenizer, self.params = engine, tokenizer, params

    def line(self, line: str) -> bool:
        """Process one line; return False if it ends the conversation."""
        if line.strip() == "/quit":
            return False
        try:
            if line.strip() == "/help":
                say(HELP)
            elif line.strip() == "/settings":
                say(settings(self.params))
            elif line.startswith("/"):
                self.params = changed(self.params, line)
            else:
                self.text(line)
        except UsageError as error:
            say(for_terminal(str(error)))
        return True

    def text(self, prompt: str) -> None:
        """Continue the prompt until the text ends, or is interrupted."""
        tokens = tuple(self.tokenizer.prompt_ids(prompt))
        interrupts, logprobs = Interrupts(), list[TokenLogprob]()
        with interrupts.noted():
            id = self.engine.submit(GenerationRequest(tokens, self.params))
            write(prompt)
            while self.engine.has_work:
                if interrupts.pressed:
                    self.engine.cancel(id)
                for event in self.engine.step():
                    write(event.text)
                    logprobs += event.logprobs
        say("\n")
        if logprobs:
            say(for_terminal(logprob_lines(self.tokenizer, logprobs)))
        self.params = dataclasses.replace(self.params, seed=(self.params.seed + 1) % 2**32)


def lines() -> Generator[str]:
    """Yield typed or piped lines; on a terminal with a prompt and line editing. Ctrl-C discards a line."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.rstrip("\n")
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its editing and history
    while True:
        try:
            yield input("> ")
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return


def converse(experiment: Experiment, workdir: Path, options: Options) -> None:
    """Continue what is typed until /quit or the end of the input. Raises like `load_trained`, and UsageError for
    invalid options."""
    if process_count() > 1:
        raise UsageError(
            f"--interactive is for one process, but there are {process_count()} here. Give --prompt instead."
        )
    config, model = experiment.sample, experiment.model
    temperature = config.temperatures[-1] if options.temperature is None else options.temperature
    most = config.tokens if options.max_tokens is None else options.max_tokens
    params = options.params(temperature, most, config.seed if options.seed is None else options.seed)
    run = load_trained(
        experiment, workdir, 1, model.context_length, "model.context_length", options.step, options.weights
    )
    from lm.inference.engine import Engine

    engine = Engine(run.model, model, run.tokenizer, slots=1, mesh=run.mesh, decode_steps=STREAMED_STEPS)
    engine.warm_up(1)  # before the user has typed anything
    if sys.stdin.isatty():
        say(f"The model at step {run.step:,}. Type the beginning of a text; /help for more, /quit to end.")
    conversation = Conversation(engine, run.tokenizer, params)
    for line in lines():
        if not conversation.line(line):
            break

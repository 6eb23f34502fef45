"""Sample from the trained model: each prompt at each temperature.

    python -m launch.sample runs/demo --prompt "The miller" "A farmer" --temperature 0.8 --top-p 0.9
    python -m launch.sample runs/demo --interactive

With any of the options below, texts are only printed, and the run is not changed.
"""

import contextlib
import dataclasses
import itertools
import signal
import sys
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import tyro

from configs.experiment import Experiment
from configs.experiment.command_line import Flag
from launch.stages.command import run_stage_command
from launch.stages.processes import process_index, require_one_process
from launch.stages.stage import Stage
from launch.stages.trained import leave_together, load_trained, say
from lm.errors import UsageError, for_terminal, shown
from lm.fields import code_names
from lm.inference.requests import GenerationRequest, SamplingParams, TokenLogprob, check_prompt
from lm.run_paths import RunPaths
from lm.storage import write_json
from lm.trusted_code import code_hashes

if TYPE_CHECKING:
    from lm.inference.engine import Engine
    from lm.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of launch.sample with which texts are only printed, as they are generated, and the run is not changed."""

    prompt: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Prompts to continue, instead of sample.prompts."""
    step: int | None = None
    """Step of the checkpoint or snapshot to sample from; default: the newest."""
    interactive: Flag = 0
    """Continue what you type, line by line. Default on a terminal if neither --prompt nor --step is set, but another
    option is."""
    n: int = 1
    """Texts per prompt and temperature, with consecutive seeds."""
    temperature: float | None = None
    """Temperature, instead of sample.temperatures: 0 is greedy decoding, 1 samples from the model's distribution."""
    top_k: int = 0
    """Sample only from the k most likely tokens; 0: all."""
    top_p: float = 1.0
    """Sample only from the most likely tokens whose probabilities add up to p (nucleus sampling)."""
    min_p: float = 0.0
    """Sample only from tokens with at least this fraction of the probability of the most likely one."""
    repetition_penalty: float = 1.0
    """Values above 1 make tokens that already occur in the text less likely."""
    max_tokens: int | None = None
    """Maximum new tokens per text; default: sample.tokens minus the prompt."""
    stop: tuple[str, ...] = ()
    """End a text before the first occurrence of one of these strings."""
    seed: int | None = None
    """Random seed, instead of sample.seed; the same seed gives the same text."""
    logprobs: int | None = None
    """Print the log-probability of each token, and of the N most likely tokens at its position."""
    weights: Literal["float32", "bfloat16", "int8"] | None = None
    """Convert the weights to this type, in a layout for fast decoding on one device; default: as trained."""

    def params(self, temperature: float, max_tokens: int, seed: int) -> SamplingParams:
        """Return the sampling parameters of these options for one text. Raises UsageError for invalid values."""
        return SamplingParams(
            max_tokens, temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty, self.stop, seed,
            self.logprobs,
        )  # fmt: skip


MOST_SLOTS = 16
"""Maximum number of texts to generate at once."""
STREAMED_STEPS = 4
"""Tokens to generate between two prints."""


class Text(NamedTuple):
    """A text to generate, with its title."""

    title: str
    prompt: str
    request: GenerationRequest


def write(text: str) -> None:
    """Print text without a line break after it, in process 0 only."""
    if process_index() == 0:
        sys.stdout.write(for_terminal(text))
        sys.stdout.flush()


def continue_prompts(experiment: Experiment, workdir: Path, options: Options, prompts: Sequence[str]) -> None:
    """Generate and print a continuation of each prompt at each temperature. Raises UsageError for invalid options or a
    prompt that leaves no room for new tokens, and the errors of `load_trained`."""
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
    run = load_trained(
        experiment, workdir, slots, "the number of prompts", options.step, tokens=tokens, weights=options.weights
    )
    texts = []
    for prompt in prompts:
        if options.max_tokens is None:
            row = check_prompt(run.tokenizer, prompt, config.tokens)
            most = config.tokens - len(row)
        else:
            context = experiment.model.context_length
            row = check_prompt(run.tokenizer, prompt, context, "That is the model's context: shorten the prompt.")
            most = min(options.max_tokens, context - len(row))
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


def print_in_order(engine: "Engine", tokenizer: "Tokenizer", texts: Sequence[Text]) -> None:
    """Generate all texts at once, and print them one after the other, each under its title: the first unfinished one is
    streamed, later ones are buffered."""
    numbers = {engine.submit(text.request): text for text in texts}
    events = {id: [] for id in numbers}
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
    """One line per token: log-probability and token, then the likeliest tokens there, each with its log-probability."""
    shown = lambda id: repr(tokenizer.decode([id]))
    lines = []
    for one in logprobs:
        others = "  ".join(f"{shown(id)} {value:.3f}" for id, value in one.top)
        lines.append(f"{one.logprob:9.3f}  {shown(one.token):<20} {others}".rstrip())
    return "\n".join(lines)


HELP = """Type the beginning of a document; the model continues it. Ctrl-C ends a text.
  /temperature 0.8    changes a setting; others: /top-k, /top-p, /min-p, /repetition-penalty, /max-tokens, /seed and
                      /logprobs (without a number: none)
  /stop END           ends texts before END; /stop without a text removes it
  /settings           shows the settings
  /quit               ends the program, as does Ctrl-D"""
SETTINGS: dict[str, type] = {
    "temperature": float, "top_k": int, "top_p": float, "min_p": float, "repetition_penalty": float, "max_tokens": int,
    "seed": int, "logprobs": int,
}  # fmt: skip


def changed(params: SamplingParams, command: str) -> SamplingParams:
    """Return `params` changed by a command such as "/temperature 0.8". Raises UsageError for an invalid command."""
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
        raise UsageError(f"/{name} needs a number; it got {shown(value)}.") from None
    return dataclasses.replace(params, **{field: number})


def settings(params: SamplingParams) -> str:
    """Text that /settings prints, a line per sampling parameter."""
    values = {name: getattr(params, name) for name in SETTINGS} | {"stop": params.stop or None}
    return "\n".join(f"  {name.replace('_', '-'):<19} {value}" for name, value in values.items())


def continue_text(engine: "Engine", tokenizer: "Tokenizer", params: SamplingParams, prompt: str) -> None:
    """Continue the prompt until the text ends, or Ctrl-C is pressed; a second Ctrl-C ends the program."""
    logprobs, pressed = list[TokenLogprob](), False

    def note(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, note)
    try:
        id = engine.submit(GenerationRequest(tuple(tokenizer.prompt_ids(prompt)), params))
        write(prompt)
        while engine.has_work:
            if pressed:
                engine.cancel(id)
            for event in engine.step():
                write(event.text)
                logprobs += event.logprobs
    finally:
        signal.signal(signal.SIGINT, before)
    say("\n")
    if logprobs:
        say(for_terminal(logprob_lines(tokenizer, logprobs)))


def lines() -> Generator[str]:
    """Yield the lines of standard input; on a terminal, with a prompt and line editing, and Ctrl-C discards a line."""
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
    """Continue each line of standard input until /quit or its end. Raises UsageError for invalid options and for
    several processes, and the errors of `load_trained`."""
    require_one_process("--interactive", "Give --prompt instead.")
    config, model = experiment.sample, experiment.model
    temperature = config.temperatures[-1] if options.temperature is None else options.temperature
    most = config.tokens if options.max_tokens is None else options.max_tokens
    params = options.params(temperature, most, config.seed if options.seed is None else options.seed)
    run = load_trained(experiment, workdir, 1, "model.context_length", options.step, weights=options.weights)
    from lm.inference.engine import Engine

    engine = Engine(run.model, model, run.tokenizer, slots=1, mesh=run.mesh, decode_steps=STREAMED_STEPS)
    engine.warm_up(1)  # before the user has typed anything
    if sys.stdin.isatty():
        say(f"The model at step {run.step:,}. Type the beginning of a text; /help for more, /quit to end.")
    for line in lines():
        command = line.strip()
        if command == "/quit":
            break
        try:
            if command in ("/help", "/settings"):
                say(HELP if command == "/help" else settings(params))
            elif line.startswith("/"):
                params = changed(params, line)
            else:
                continue_text(engine, run.tokenizer, params, line)
                params = dataclasses.replace(params, seed=(params.seed + 1) % 2**32)
        except UsageError as error:
            say(for_terminal(str(error)))


def on_the_side(experiment: Experiment, workdir: Path, options: Options) -> bool:
    """Generate and print texts as the options request; return False if none is set."""
    if options == Options():
        return False
    prompts = tuple(itertools.chain.from_iterable(options.prompt))
    if options.interactive or not (prompts or options.step is not None or not sys.stdin.isatty()):
        converse(experiment, workdir, options)
        return True
    if prompts and options.max_tokens is None:
        experiment = experiment.with_sections(sample=dataclasses.replace(experiment.sample, prompts=prompts))
    continue_prompts(experiment, workdir, options, prompts or experiment.sample.prompts)
    return True


def make(experiment: Experiment, run: Path) -> None:
    """Print and write a continuation of each of sample.prompts at each of sample.temperatures. Raises UsageError for a
    prompt that leaves no room for new tokens, and the errors of `load_trained`."""
    import jax

    from lm.inference.generate import sample_texts

    config = experiment.sample
    pairs = [*itertools.product(config.prompts, config.temperatures)]
    prompts, temperatures = zip(*pairs, strict=True)
    loaded = load_trained(experiment, run, len(pairs), "the number of sample.prompts", tokens=config.tokens)
    texts = sample_texts(
        loaded.model, experiment.model, loaded.tokenizer, prompts, temperatures, config.tokens,
        key=jax.random.key(config.seed), mesh=loaded.mesh,
    )  # fmt: skip
    for (prompt, temperature), text in zip(pairs, texts, strict=True):
        say(f"\n--- {prompt!r} at temperature {temperature:g}\n{for_terminal(text)}")
    say("")
    leave_together()
    if process_index() == 0:
        rows = [{"prompt": p, "temperature": t, "text": text} for (p, t), text in zip(pairs, texts, strict=True)]
        write_json(RunPaths(run).final_samples, {"samples": rows})


STAGE = Stage(
    name="sample",
    script="launch.sample",
    after=("launch.train_tokenizer:STAGE", "launch.train:STAGE"),
    after_finetuning=("launch.finetune:CONVERSATIONS", "launch.finetune:TRAIN"),
    settings=lambda experiment: {"sample": experiment.sample},
    external_inputs=lambda experiment: code_hashes(code_names(experiment.model, "model.")),
    make=make,
    outputs=(RunPaths.final_samples,),
    checked=(RunPaths.final_samples,),
    multi_process=True,
)

if __name__ == "__main__":
    run_stage_command(STAGE, "sample", options=Options, on_the_side=on_the_side)

"""Talk to a finetuned model in the terminal.

    python -m launch.chat runs/assistant
    python -m launch.chat runs/assistant --message "What is Characiformes?"

It calls its tools as it was trained to: a search in the pages of the run that it was finetuned from, and a calculator.
/system TEXT sets the system message, /reset starts again, /quit ends.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import tyro

from configs.experiment import Experiment
from configs.experiment.command_line import Flag
from launch.stages.command import run_command
from launch.stages.processes import require_one_process
from launch.stages.trained import load_template, load_trained
from lm.chat.assistant import TEMPERATURE
from lm.errors import InputError, for_terminal
from lm.storage import shown_place

COMMANDS = "/system TEXT sets the system message, /reset starts again, /quit ends."


@dataclasses.dataclass(frozen=True)
class Options:
    message: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Ask this, print the answer and end; several are one conversation."""
    system: str = ""
    """System message."""
    temperature: float = TEMPERATURE
    """0: always the most likely token."""
    max_tokens: int = 256
    """Maximum tokens of an answer, with its calls of tools."""
    seed: int = 0
    """Seed of the first answer, below 2**32; each further one adds 1."""
    step: int | None = None
    """Step of the checkpoint; default: the newest."""
    no_tools: Flag = 0
    """Run no tools."""


def talk(experiment: Experiment, workdir: Path, options: Options) -> bool:
    require_one_process("launch.chat", "Start only one.")
    template = load_template(workdir)  # first: it is refused before JAX is imported
    from lm.chat.assistant import Answer, generate_answers, recent
    from lm.chat.tools import NO_TOOLS, tools_of
    from lm.inference.engine import Engine
    from lm.inference.requests import SamplingParams

    run = load_trained(experiment, workdir, 1, "--max-tokens", options.step)
    tools = NO_TOOLS if options.no_tools else tools_of(experiment.chat.base, run.tokenizer)
    engine = Engine(run.model, experiment.model, run.tokenizer, slots=1, mesh=run.mesh)
    if not options.message:
        print(f"{shown_place(workdir)} at step {run.step:,}; tools: {', '.join(tools.functions) or 'none'}")
        print(COMMANDS)
    begin = [{"role": "system", "content": options.system}] if options.system else []
    messages, seed = list(begin), options.seed
    for line in options.message or typed():
        if options.message:
            print(f"> {for_terminal(line)}")
        command, _, rest = line.strip().partition(" ")
        if not line.strip():
            continue
        if command == "/quit":
            break
        if command in ("/reset", "/system"):
            begin = [{"role": "system", "content": rest}] if command == "/system" and rest else []
            messages = list(begin)
            print("(a new conversation)")
            continue
        if line.strip() == command and command.startswith("/"):
            print(COMMANDS)
            continue
        messages.append({"role": "user", "content": line})
        params = SamplingParams(max_tokens=options.max_tokens, temperature=options.temperature, seed=seed)
        seed = (seed + 1) % 2**32
        try:
            shorter = recent(template, messages, engine.context // 2, sys.maxsize)
            if len(shorter) < len(messages):
                messages = shorter
                print(f"  [the oldest messages are forgotten: the context has {engine.context:,} tokens]")
            answer = Answer(template, tools, messages, params, engine.context, forgets=True)
            for _, step in generate_answers(engine, answer):
                sys.stdout.write(for_terminal(step.text))
                sys.stdout.flush()
                if step.message is not None:
                    messages.append(step.message)
                    show(step)
        except InputError as error:
            if options.message:
                raise
            print(f"{for_terminal(str(error))} /reset starts a new conversation.")
            messages = list(begin)
    return True


def typed() -> Iterator[str]:
    """Yield the lines that the user types, to their end."""
    with contextlib.suppress(EOFError):
        while True:
            yield input("\n> ")
    print()


def show(step: Any) -> None:
    """Print the calls of a message, or the result of a tool with its sources."""
    for call in step.message.get("tool_calls", ()):
        function = call["function"]
        arguments = ", ".join(f"{name}={value!r}" for name, value in function["arguments"].items())
        print(for_terminal(f"  [{function['name']}({arguments})]"))
    if step.result is not None:
        text = step.result.text
        print(for_terminal(f"  [{text if len(text) <= 200 else text[:200] + '...'}]"))
        for source in step.result.sources:
            print(for_terminal(f"  [from {source.url}]"))
    elif "tool_calls" not in step.message:
        print("  [cut: --max-tokens or the context length is reached]" if step.finish_reason == "length" else "")


if __name__ == "__main__":
    run_command("launch.chat", None, (), options=Options, on_the_side=talk)

"""Show conversations as the model is trained on them: token by token, in color what it learns to write.

    python -m launch.inspect_conversations runs/assistant talks.jsonl --count 3

The run gives tokenizer and chat template; it can be a finetuned run, or an imported model. Special tokens are inverse.
Without colors, as in a pipe, what it learns to write is between {+ and +}.
"""

import itertools
from dataclasses import dataclass

import tyro

from configs.experiment import existing_run
from launch.stages.command import run_without_config
from lm.errors import for_terminal
from lm.storage import place_of


@dataclass(frozen=True)
class Command:
    run: tyro.conf.Positional[str]
    """Run folder with the tokenizer."""
    files: tyro.conf.Positional[tuple[str, ...]] = ()
    """JSON lines or Parquet with conversations; default: conversations/ of the run."""
    count: int = 3
    """Conversations of each file to show."""
    first: int = 0
    """Conversations to skip."""


def run(command: Command) -> None:
    from rich.console import Console
    from rich.text import Text

    from data_prep.conversations import read_conversations
    from lm.chat.template import ChatTemplate
    from lm.chat.templates import with_template

    folder = existing_run(command.run)
    tokenizer = with_template(folder.load_tokenizer(), "")
    template, console = ChatTemplate(tokenizer), Console(soft_wrap=True, highlight=False)
    special = set(tokenizer.special_tokens.values())
    left_out = lambda place, reason, text: console.print(Text(f"{place}: left out, {text} [{reason}]", "yellow"))
    files = [place_of(one) for one in command.files] or sorted(folder.conversations.glob("*.jsonl"))
    for file in files:
        some = itertools.islice(read_conversations(file, left_out), command.first, command.first + command.count)
        for conversation in some:
            ids, trained = template.encode(conversation.messages, conversation.tools)
            console.print(Text(f"\n{conversation.place}: {len(ids):,} tokens, {trained.sum():,} trained", "bold"))
            text, before = Text(), False
            for id, on in [*zip(ids.tolist(), trained.tolist(), strict=True), (None, False)]:
                if on != before and console.color_system is None:
                    text.append("{+" if on else "+}")
                before = on
                if id is not None:
                    style = ("green" if on else "default") + (" reverse" if id in special else "")
                    text.append(for_terminal(tokenizer.decode([id])), style)
            console.print(text)


if __name__ == "__main__":
    run_without_config("launch.inspect_conversations", Command, run)

"""Configuration of finetuning on conversations."""

from dataclasses import dataclass
from typing import Annotated, Literal

from lm.errors import UsageError
from lm.fields import NAMES_CODE, Config, not_hashed, within

HeldOut = Literal["any", "rephrased"]


@dataclass(frozen=True)
class ChatConfig(Config):
    """Finetuning on conversations (launch.finetune)."""

    base: str = not_hashed(default="")
    """Run folder of the model to start from; empty: this run is not finetuned."""
    step: int | None = None
    """Step of the checkpoint or snapshot of `base`; default: the newest."""
    conversations: tuple[str, ...] = ()
    """Files with a conversation per row, as JSON lines or Parquet: {"messages": [{"role": ..., "content": ...}, ...]}.
    Paths, patterns, or URLs."""
    written_by: Annotated[str, NAMES_CODE] = ""
    """Function that returns conversations, given the folder of `base`; they are stored in conversations/ of the run
    folder. page_questions (configs/recipes/page_questions.py), or your own as my_module.my_function; empty: none."""
    template: Literal["", "gristmill", "chatml", "llama3"] = ""
    """Chat template; empty: that of the tokenizer, or the first whose special tokens it has, or else gristmill, whose
    tokens are then appended to the vocabulary."""
    validation_fraction: float = 0.02
    """Share of the conversations to hold out."""
    held_out: HeldOut = "any"
    """any: hold out conversations by a hash of their first question. rephrased: only those whose answers are also the
    answers to other questions, in the training split, so that the loss measures other phrasings of what the model has
    learned, not facts that it has never read."""
    questions: tuple[str, ...] = not_hashed(default=())
    """Questions that launch.report asks the finished model, each in a new conversation, to show the answers."""

    def check_values(self):
        within(self, "chat", 0, 1, "validation_fraction", above=True, below=True)
        if "://" in self.base:
            raise UsageError(f"chat.base is {self.base}; a run in a bucket must be copied to a disk first.")

"""A model in another program's files, as launch.import_model takes it into a run folder."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lm.config import ModelConfig
from lm.config.model import least_parameters
from lm.errors import InputError, UsageError
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.encoding import BytePairTokenizer
from lm.tokenizer.hugging_face.library import LibraryTokenizer

MOST_TEMPLATE = 1 << 18
"""Characters of a chat template; published ones have up to 20,000."""


@dataclass(frozen=True)
class SpecialTokens:
    """What a source says of its special tokens, besides the vocabulary."""

    bos: int | None = None
    eos: tuple[int, ...] = ()
    add_bos: bool | None = None
    """Whether its tokenizer puts BOS before a text; None if it does not say so."""
    chat_template: str = ""

    def __post_init__(self):
        if len(self.chat_template) > MOST_TEMPLATE:
            raise InputError(
                f"The chat template has {len(self.chat_template):,} characters; at most {MOST_TEMPLATE:,} are read. "
                "Shorten it."
            )

    def on(self, tokenizer: Tokenizer, named: bool = False) -> tuple[Tokenizer, tuple[str, ...]]:
        """(`tokenizer` with the source's special tokens, notes for the user). An id that is no special token of
        `tokenizer` is left out with a note. `named`: the tokenizer's own files name its BOS, which stays."""
        names = {id: name for name, id in tokenizer.special_tokens.items()}
        eos = tuple(id for id in self.eos if id in names)
        changes: dict[str, object] = {}
        if isinstance(tokenizer, BytePairTokenizer | LibraryTokenizer):
            if self.bos in names and not named:
                changes["start"] = names[self.bos]
            if eos and tokenizer.special_tokens[tokenizer.end] not in eos:
                changes["end"] = names[eos[0]]
        found = dataclasses.replace(
            tokenizer, **changes, chat_template=self.chat_template or tokenizer.chat_template,
            add_bos=tokenizer.add_bos if self.add_bos is None else self.add_bos,
        )  # fmt: skip
        if len(eos) != 1 or found.eos_ids != {*eos}:
            found = dataclasses.replace(found, stop_ids=eos)
        found = tokenizer if found == tokenizer else found
        wanted = [("BOS", self.bos)] * (self.bos is not None and not named) + [("EOS", id) for id in self.eos]
        kept = {found.bos_id, *eos}
        notes = [
            f"{kind} is {id} in the source, which is not {kind} in the tokenizer: its own ids, BOS {found.bos_id} and "
            f"EOS {', '.join(map(str, sorted(found.eos_ids)))}, are used."
            for kind, id in wanted
            if id not in kept
        ]
        if found.missing_bytes:
            listed = ", ".join(f"0x{byte:02X}" for byte in found.missing_bytes)
            notes.append(
                f"the vocabulary has no token for {len(found.missing_bytes)} of the 256 bytes ({listed}): a text that "
                "needs one of them, as prompt or to train on, is refused."
            )
        return found, tuple(notes)


@dataclass(frozen=True)
class SourceModel:
    """What a run folder is made of; the parameters are still in the files."""

    config: ModelConfig
    tokenizer: Tokenizer
    parameters: Mapping[str, np.ndarray]
    """Under our names of unrolled layers, each read when it is asked for."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """{the format's name of a tensor: its type there}, by which an export gives the same bytes again."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Small files of the source that are kept as they are, by name."""
    notes: tuple[str, ...] = ()
    """What the user should know of the import."""


def check_symbols(symbols: int, config: ModelConfig, source: Path | str) -> None:
    """Raises UsageError if a tokenizer has more symbols than the model has rows: before the tokenizer is made, which
    takes some 10 s for a million."""
    if symbols > config.vocab_size:
        raise UsageError(
            f"{source}: the tokenizer has {symbols:,} symbols, but the model has {config.vocab_size:,} rows of "
            "embeddings. Name the tokenizer that the model was trained with by --tokenizer."
        )


FAR_MORE = 100
"""How many times more parameters a config may describe than there are numbers, before it is refused as a whole."""


def check_size(config: ModelConfig, source: Path, values: int, tensors: int) -> None:
    """Raises InputError if the config needs more parameters or layers than the weights of `source` hold: `values`
    numbers in so many tensors. To be called before anything is made for each layer. Smaller differences are left to
    the comparison of each tensor's shape, which names the tensor."""
    needed = least_parameters(config)
    if needed > FAR_MORE * values or config.layers > tensors:
        raise InputError(
            f"{source} describes a model of at least {needed:,} parameters in {config.layers:,} layers, but its "
            f"weights are {values:,} numbers in {tensors:,} tensors. Are the config and the weights of the same model, "
            "and all there? Get both again."
        )

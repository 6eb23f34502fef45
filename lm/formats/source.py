"""A model in another program's files, as launch.import_model reads it to convert it to a run folder."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lm.config import ModelConfig
from lm.config.model import least_parameters
from lm.errors import InputError, UsageError, shown
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.encoding import BytePairTokenizer
from lm.tokenizer.hugging_face.library import LibraryTokenizer

MOST_TEMPLATE = 1 << 18
"""Maximum characters of a chat template; published ones have up to 20,000."""


@dataclass(frozen=True)
class SpecialTokens:
    """BOS, EOS and chat template of an imported model, from JSON files next to the vocabulary or from a GGUF header.
    `bos` and `eos` are token ids."""

    bos: int | None = None
    eos: tuple[int, ...] = ()
    add_bos: bool | None = None
    """Whether the model's tokenizer prepends BOS to a text; None if the files do not say."""
    chat_template: str = ""

    def __post_init__(self):
        if len(self.chat_template) > MOST_TEMPLATE:
            raise InputError(
                f"The chat template has {len(self.chat_template):,} characters; the limit is {MOST_TEMPLATE:,}. "
                "Shorten it."
            )

    def on(self, tokenizer: Tokenizer, named: bool = False) -> tuple[Tokenizer, tuple[str, ...]]:
        """Return (`tokenizer` with these special tokens, notes for the user). An id that is not a special token of
        `tokenizer` is ignored, with a note. If `named`, the tokenizer's files name its BOS, which is kept."""
        names = tokenizer.special_names
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
                f"the vocabulary has no token for {len(found.missing_bytes)} of the 256 bytes ({listed}): a prompt or "
                "training text that needs one of them is refused."
            )
        return found, tuple(notes)


@dataclass(frozen=True)
class SourceModel:
    """An opened model: config, tokenizer, and parameters that are still in the files."""

    config: ModelConfig
    tokenizer: Tokenizer
    parameters: Mapping[str, np.ndarray]
    """{parameter, such as "blocks.0.attention.query.weight": values}; values are read on access."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """{name of a tensor in the source: its type there}, so that an export can write the same bytes."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """{name: contents} of small files of the source that are copied unchanged."""
    notes: tuple[str, ...] = ()
    """Notes for the user."""


@dataclass(frozen=True)
class Fields:
    """Fields of a source's config file, read with checks of their types; every error names the file and the field."""

    path: Path
    values: Mapping[str, Any]
    remedy: str

    def read[Value](self, name: str, kind: type[Value], default: Value | None = None) -> Value:
        """Return the value of a field, or `default` if it is missing or null. Raises InputError if it is not of type
        `kind`, or is missing without a default."""
        value = self.values.get(name)
        value = default if value is None else value
        if kind is float and type(value) is int and abs(value) <= 2**53:  # exactly representable as float
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise InputError(
                f"{self.path}: {name} is {shown(value)}, but must be of type {kind.__name__}. {self.remedy}"
            )
        return value

    def read_all(self, names: Mapping[str, str], **defaults: float) -> dict[str, Any]:
        """Return {field of ModelConfig: value}. `names` maps it to the name in the file, `defaults` to its default."""
        kind = lambda ours: float if ours == "norm_epsilon" else int
        return {ours: self.read(theirs, kind(ours), defaults.get(ours)) for ours, theirs in names.items()}

    def require(self, name: str, *known: object) -> None:
        """Raise InputError unless the field's value is in `known`. A missing or null field counts as `known[0]`."""
        value = self.values.get(name)
        value = known[0] if value is None else value
        if not any(type(value) is type(one) and value == one for one in known):
            raise InputError(
                f"{self.path}: {name} is {shown(value)}, which is not supported; only {' or '.join(map(repr, known))} "
                "is. This checkpoint cannot be converted."
            )

    def part(self, name: str) -> "Fields":
        """Return the object in a field as Fields; empty if the field is missing or null."""
        return Fields(self.path, self.read(name, dict, {}), self.remedy)


def check_symbols(symbols: int, config: ModelConfig, source: Path | str) -> None:
    """Raise UsageError if a tokenizer has more symbols than the model has rows of embeddings. Call it before building
    the tokenizer, which takes about 10 s for a million symbols."""
    if symbols > config.vocab_size:
        raise UsageError(
            f"{source}: the tokenizer has {symbols:,} symbols, but the model has {config.vocab_size:,} rows of "
            "embeddings. Give the tokenizer that the model was trained with as --tokenizer."
        )


FAR_MORE = 100
"""A config with more than this many times the parameters of the weights is rejected before tensors are compared."""


def check_size(config: ModelConfig, source: Path, values: int, tensors: int) -> None:
    """Raise InputError if a config claims far more than the weights of `source` hold: more than FAR_MORE times `values`
    parameters, or more layers than `tensors`, the number of tensors. Call it before allocating anything per layer.
    Smaller differences are found by comparing each tensor's shape."""
    needed = least_parameters(config)
    if needed > FAR_MORE * values or config.layers > tensors:
        raise InputError(
            f"{source} describes a model of at least {needed:,} parameters in {config.layers:,} layers, but its "
            f"weights are {values:,} numbers in {tensors:,} tensors. Download the config and all weights "
            "of the same model again."
        )

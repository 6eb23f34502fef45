"""Inspect a model with its config and tokenizer."""

import contextlib
import math
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lm.config import ModelConfig
from lm.errors import InputError, UsageError
from lm.inspect.answers import Layers, Next, Score, bits_per_byte, gzip_bits_per_byte
from lm.inspect.architecture import Part, architecture
from lm.inspect.forward import ALTERNATIVES, Guesses, padded_length, programs
from lm.model.transformer import Transformer
from lm.parallel import on_host
from lm.tokenizer import Tokenizer

MOST_POSITIONS = 64
"""Maximum number of positions in `layers`."""
MOST_SHARES = 1 << 22
"""Maximum number of attention weights, over all layers and heads, returned by `layers`: 16 MB."""
REMEMBERED = 8
"""Number of texts whose results are cached; a page requests the scores of a text and then the next token."""

type Tell = Callable[[str], None]


def silent(text: str) -> None:
    """Ignore the message."""


class Inspector:
    """Inspects a model. Texts are read as documents, after a head (tokenizer.bos_id), which is not one of their tokens.
    A text is a string, in which names of special tokens are plain text, or a sequence of token ids; if these start with
    a head, it is used as the head of the document."""

    def __init__(self, model: Transformer, config: ModelConfig, tokenizer: Tokenizer, mesh: Mesh):
        """`model` is on `mesh` (configs.experiment.run_folder.RunFolder.load returns all four), or prepared by
        lm.inference.weights."""
        self.model, self.config, self.tokenizer, self.mesh = model, config, tokenizer, mesh
        self._programs = programs(mesh, tokenizer.vocab_size)
        self._special = frozenset(tokenizer.special_tokens.values())
        self._remembered: OrderedDict[tuple[int, ...], tuple[Guesses, np.ndarray]] = OrderedDict()

    @property
    def parameters(self) -> int:
        """Number of parameters by the config, independent of the layout of the weights."""
        return self.architecture().parameters

    @property
    def room(self) -> int:
        """Maximum number of tokens of a text that the model reads."""
        return self.config.context_length - 1

    def architecture(self) -> Part:
        """Tree of the network's parts."""
        return architecture(self.config)

    def score(self, text: str | Sequence[int], top: int = 5, most: int | None = None, tell: Tell = silent) -> Score:
        """Score each token, with the `top` most likely alternatives (at most 20). Tokens beyond `most`, or the context
        length of the model, are not read. `tell` is called before a program is compiled. Raises like `ids_of`, and
        InputError if the model returns NaN."""
        ids, dropped = self.cut(text, self.room if most is None else min(most, self.room))
        found, _ = self._read(ids, tell)
        scored = jax.tree.map(lambda array: array[: len(ids)], found)
        check_finite(scored.losses_T)
        pieces = [b"" if id in self._special else self.tokenizer.token_bytes(id) for id in ids]
        bits_N = scored.losses_T / np.float32(math.log(2))
        return Score(
            np.array(ids, np.int32), pieces, bits_N, scored.ranks_T,
            scored.ids_TK[:, : self._checked(top)], scored.probabilities_TK[:, :top],
            bits_per_byte(bits_N, pieces), gzip_bits_per_byte(pieces), dropped,
        )  # fmt: skip

    def next_logits(self, text: str | Sequence[int], most: int | None = None, tell: Tell = silent) -> Next:
        """Return the logits of the token after the text. Arguments and errors are as in `score`."""
        ids, dropped = self.cut(text, self.room if most is None else min(most, self.room))
        logits_V = self._read(ids, tell)[1]
        check_finite(logits_V)
        return Next(logits_V, len(ids), dropped)

    def layers(self, text: str | Sequence[int], top: int = 5, tell: Tell = silent) -> Layers:
        """Return attention, residual stream and logit lens for the head and the first MOST_POSITIONS - 1 tokens, or
        fewer if attention would have more than MOST_SHARES weights. Raises like `score`."""
        heads = self.config.layers * self.config.heads
        ids, dropped = self.cut(text, min(self.room, MOST_POSITIONS - 1, max(1, math.isqrt(MOST_SHARES // heads) - 1)))
        tokens, top = [self.tokenizer.bos_id, *ids], self._checked(top)
        count = len(tokens)
        row_1T = self._row(tokens)
        with self._compiled_once("look_inside", row_1T.shape[1], tell):
            found = jax.tree.map(on_host, self._programs.look_inside(self.model, row_1T))
        lens = jax.tree.map(lambda array: array[:, :count], found.lens)
        check_finite(lens.probabilities_TK)
        came_ET, rank_ET = np.exp(-lens.losses_T), lens.ranks_T.copy()
        came_ET[:, -1], rank_ET[:, -1] = np.nan, 0
        return Layers(
            np.array(tokens, np.int32), found.attention_LHTS[:, :, :count, :count], found.stream_ET[:, :count],
            found.behind_attention_LT[:, :count], found.attention_out_LT[:, :count], found.mlp_out_LT[:, :count],
            lens.ids_TK[..., :top], lens.probabilities_TK[..., :top], came_ET, rank_ET, dropped,
        )  # fmt: skip

    def warm(self, most: int | None = None) -> None:
        """Compile the programs for texts of every length, up to `most` tokens."""
        room = self.room if most is None else min(most, self.room)
        for tokens in sorted({min(1 << power, room) for power in range(room.bit_length() + 1)}):
            self._read_anew((self.tokenizer.bos_id,) * tokens)
        for positions in sorted({1, min(MOST_POSITIONS, self.config.context_length)}):
            self.layers([self.tokenizer.bos_id] * positions)

    def ids_of(self, text: str | Sequence[int]) -> list[int]:
        """Return the tokens of a text, without the document head. Raises UsageError for an invalid id, InputError if
        the tokenizer cannot encode the text."""
        if isinstance(text, str):
            return self.tokenizer.encode(text)
        ids = [int(id) for id in text]
        if wrong := [id for id in ids if not 0 <= id < self.tokenizer.vocab_size]:
            raise UsageError(f"{wrong[0]} is not a token id: ids range from 0 to {self.tokenizer.vocab_size - 1:,}.")
        return ids[1:] if ids[:1] == [self.tokenizer.bos_id] else ids

    def cut(self, text: str | Sequence[int], room: int) -> tuple[tuple[int, ...], int]:
        """Return (the first `room` tokens, number of further tokens)."""
        ids = self.ids_of(text)
        return tuple(ids[:room]), max(0, len(ids) - room)

    def _checked(self, top: int) -> int:
        if not 0 <= top <= ALTERNATIVES:
            raise UsageError(f"top is {top}; it must be from 0 to {ALTERNATIVES}.")
        return top

    def _row(self, tokens: Sequence[int]) -> jax.Array:
        row_1T = np.zeros((1, padded_length(len(tokens), self.config, self.mesh)), np.int32)
        row_1T[0, : len(tokens)] = tokens
        return jnp.asarray(row_1T)

    @contextlib.contextmanager
    def _compiled_once(self, program: str, length: int, tell: Tell) -> Generator[None]:
        """Context manager around a call of a program: reports the compilation, if no earlier call has returned."""
        key = self.config, program, length
        if key not in self._programs.ready:
            tell(f"compiling a program for texts of up to {length - 1:,} tokens (once)")
        yield
        self._programs.ready.add(key)

    def _read(self, ids: tuple[int, ...], tell: Tell) -> tuple[Guesses, np.ndarray]:
        """Like `_read_anew`, with a cache of the last results. Not by functools.lru_cache, which would keep the
        Inspector and its parameters in a reference cycle that is collected late."""
        found = self._remembered.pop(ids, None)
        found = self._remembered[ids] = self._read_anew(ids, tell) if found is None else found
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return found

    def _read_anew(self, ids: tuple[int, ...], tell: Tell = silent) -> tuple[Guesses, np.ndarray]:
        """Return (predictions at the head and each token of a text, logits after it)."""
        row_1T = self._row([self.tokenizer.bos_id, *ids])
        with self._compiled_once("read_text", row_1T.shape[1], tell):
            return jax.tree.map(on_host, self._programs.read_text(self.model, row_1T, jnp.int32(len(ids))))


def check_finite(array: np.ndarray) -> None:
    """Raise InputError if any value is NaN or infinite."""
    if not np.isfinite(array).all():
        raise InputError(
            "The model's probabilities are NaN or infinite: its training has diverged, or its "
            "parameters are damaged. Look at an earlier step."
        )

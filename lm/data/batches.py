"""Token shards -> Batch, as a pure function of (shards, seed, step), using Grain.

A window is `context_length` tokens of a shard's stream, or of a packed record, plus the next token. The windows of a
shard cover its stream, so every token except the first of each shard is a target exactly once per epoch. If the context
length does not divide the record length, windows continue in the next record. Each epoch has its own order, drawn from
the seed; batches are consecutive windows in that order and may span two epochs. In a mixture, each folder of shards has
its own order, and the folders take turns (lm/data/mixture.py). Windows can be shuffled in blocks
(lm/data/block_order.py), and shards in a bucket are read ahead (lm/data/read_ahead.py).

Batch size, context length and mixture can change at given steps (lm/config/stages.py). The order of the windows remains
one stream: a step reads the windows that follow those of all earlier steps. A shorter context cuts each window into
equal sequences, which are neighbors in the batch. All targets are kept; only the context before them is shorter.

Axes: B sequences of a batch, T positions of a sequence, W windows of context_length positions.
"""

import bisect
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Array, Float, Int

from lm.config import ModelConfig, Stage, Stages, TrainConfig
from lm.config.stages import constant
from lm.data.block_order import BlockOrder, steps_in_blocks
from lm.data.mixture import Turns, manifest_sha256, mixture_of
from lm.data.read_ahead import Part, ReadAhead, Wanted, steps_of_part
from lm.data.records import Manifest, SequenceRecord, Shard, check_request, from_bytes, read_manifest
from lm.data.shards import OFFSETS_BYTES, ShardRecords
from lm.errors import InputError, UsageError
from lm.storage import Place, StorageError, Url


class Batch(NamedTuple):
    """Input of one training step: a pytree of NumPy arrays in the input pipeline, and of jax.Arrays in the step. Token
    and segment ids are int32."""

    inputs_BT: Int[Array, "B T"]  # noqa: N815
    """Token ids; 0 on padding."""
    targets_BT: Int[Array, "B T"]  # noqa: N815
    """Next token of each input; 0 if there is none."""
    segment_ids_BT: Int[Array, "B T"]  # noqa: N815
    """Index of the document within the sequence, from 1; 0 on padding."""
    weights_BT: Float[Array, "B T"]  # noqa: N815
    """1 if the target is a token of the stream and, in a conversation, one that the model is trained to write; else
    0."""


def training_batches(
    model: ModelConfig, config: TrainConfig, own: Place, tokenizer_fingerprint: str, loader_threads: int
) -> "BatchSource":
    """Return the batches of a training run. `own` is the run's folder of token shards; train.mixture can add others.
    Raises UsageError or InputError if shards are missing, damaged, or do not match the config (see BatchSource)."""
    context = model.context_length
    return BatchSource(
        mixture_of(config, own), "train", context, config.stages(context), config.seed, loader_threads,
        tokenizer_fingerprint=tokenizer_fingerprint, shuffle_block=config.shuffle_block,
    )  # fmt: skip


def host_batch(*arrays: np.ndarray) -> Batch:
    """Build a Batch from its four NumPy arrays, in the order of its fields, without casting."""
    return Batch(*cast(tuple[Any, Any, Any, Any], arrays))


class Origin(NamedTuple):
    """Origin of one sequence of a batch: a folder of shards, and documents in it."""

    folder: Place
    """Folder of shards."""
    documents: set[int]
    """Row numbers in the document tables of the folder (lm.data.records.document_tables)."""


@dataclass(frozen=True)
class Source:
    """A folder of shards, and its share of the batches."""

    folder: Place
    share: float
    """Fraction of the sequences in the first stage; the shares of all sources sum to 1."""
    windows: "Windows"
    tokens_per_epoch: int
    """Number of targets per epoch: all tokens except the first of each shard."""


class Batches:
    """Source of the batches of a run, such as a BatchSource."""

    stages: Stages
    sources: Sequence[Source] = ()
    """Folders of shards that they are read from."""
    are_sampled = False
    """Whether batches are sampled from the model in training: then the time until a batch is there is part of the step,
    and the evaluators also run before the first step."""

    def iterate(
        self, start_step: int, rows: Callable[[int, int], np.ndarray], stop_step: int, state: Callable[[], Any]
    ) -> Iterator[Any]:
        """Iterate over the batches of the steps `start_step` to `stop_step` - 1, pytrees of NumPy arrays of two axes.
        `state` returns the state before the step of the next batch; it is valid until the batch is returned."""
        raise NotImplementedError

    def identity(self) -> object:
        """Return JSON data that must be equal if a run is resumed."""
        return [{"manifest": manifest_sha256(one.folder), "share": one.share} for one in self.sources]

    def documents(self, step: int) -> list[Origin]:
        """Return the origin of each sequence in the batch of `step`; [] if there are no shards."""
        return []

    def windows_read(self, step: int) -> list[int]:
        """Return how many windows of each source the steps 0 to `step` - 1 read."""
        return []


class BatchSource(Batches):
    """Training batches, each a pure function of its step number, from one split of one or more folders of shards.

    `folders` is one folder or {folder: weight}. Weights are relative, positive and finite. They count sequences: after
    any number of sequences, each folder has its share up to a few sequences (lm.data.mixture.Turns).

    `batch_size` is a number of sequences, or the batch size, context length and weights at each step
    (TrainConfig.stages), whose weights, if any, replace those of `folders`. `shuffle_block` is train.shuffle_block: 1
    shuffles single windows, a larger number shuffles blocks of that many windows.

    Raises UsageError if a weight is invalid, if the shards lack the split or their records are shorter than
    `context_length`, or if the shards' tokenizer is not the one of `tokenizer_fingerprint` (None: any). Raises
    InputError if a file is missing, has the wrong size, or cannot be read.
    """

    def __init__(
        self,
        folders: Place | Mapping[Path, float] | Mapping[Place, float],
        split: str,
        context_length: int,
        batch_size: int | Stages,
        seed: int,
        loader_threads: int,
        *,
        tokenizer_fingerprint: str | None = None,
        shuffle_block: int = 1,
    ):
        self.context_length, self.loader_threads = context_length, loader_threads
        self.shuffle_block = shuffle_block
        self.stages = constant(batch_size, context_length) if isinstance(batch_size, int) else batch_size
        given = {folders: 1.0} if isinstance(folders, Path | Url) else folders
        weights = [stage.weights or tuple(given.values()) for stage in self.stages]
        if not given or not all(0 < sum(each) < math.inf for each in zip(*weights, strict=True)):
            told = ", ".join(f"{folder}: {weight}" for folder, weight in given.items())
            raise UsageError(f"The weights are {{{told}}}; give at least one, each above 0 and finite.")
        self.sources = sources = list[Source]()
        for folder, weight in zip(given, weights[0], strict=True):
            manifest = read_manifest(folder)
            check_request(manifest, folder, split, context_length, tokenizer_fingerprint)
            windows = Windows(folder, manifest, split, context_length)
            targets = sum(max(shard.tokens - 1, 0) for shard in windows.shards)
            sources.append(Source(folder, weight / sum(weights[0]), windows, targets))
        # Windows are numbered over all sources: source i has _first_window[i] to _first_window[i + 1] - 1.
        self._first_window = list(itertools.accumulate((len(one.windows) for one in self.sources), initial=0))
        ranges = [range(*ends) for ends in itertools.pairwise(self._first_window)]
        self._order = (
            BlockOrder(ranges, weights, seed, self.stages, shuffle_block)
            if shuffle_block > 1
            else WindowOrder(ranges, weights, seed, self.stages)
        )
        refuse_copies([(one.folder, shard) for one in self.sources for shard in one.windows.shards])

    @property
    def windows(self) -> int:
        """Number of windows (sequences of `context_length` tokens) per epoch, over all sources."""
        return self._first_window[-1]

    def warning(self) -> str | None:
        """Return a warning, with remedy, if reading from a bucket will be slow or expensive; else None."""
        for one in self.sources:
            records, window = one.windows.records, one.windows.stored_bytes()
            wanted = 2**20 if 4 * len(records) <= OFFSETS_BYTES else 2**22  # offsets of all records do not fit then
            if records.is_remote and 4 * window * self.shuffle_block < wanted:
                return (
                    f"warning: {one.folder} is read with one request per {window * self.shuffle_block:,} bytes; "
                    f"--train.shuffle-block {-(-wanted // window)} makes that {wanted >> 20} MB, with another order "
                    "of the data (docs/long_runs.md)"
                )
        return None

    def windows_read(self, step: int) -> list[int]:
        """Return how many windows of each source the steps 0 to `step` - 1 read."""
        return self._order.windows_read(step)

    def batch(self, step: int) -> Batch:
        """Return the batch of `step` (from 0). Raises InputError if a record is damaged."""
        return self._read(self._order[step], self.stages.at(step))

    def iterate(
        self,
        start_step: int = 0,
        rows: Callable[[int, int], np.ndarray] | None = None,
        stop_step: int | None = None,
        state: Callable[[], Any] | None = None,
    ) -> Iterator[Batch]:
        """Iterate over the batches of the steps `start_step` to `stop_step` - 1 (None: without end). They are read
        ahead by `loader_threads` threads, and from buckets by further threads (lm.data.read_ahead).

        `rows(B, T)` returns the numbers of the rows that this process needs of a batch of B sequences of T tokens; the
        batches then have only these. None: all rows. `state`, from the training loop, is not used. Raises UsageError if
        the blocks of train.shuffle_block do not fit into memory.
        """
        stages = self.stages.between(start_step, stop_step)
        of_stage = [np.arange(stage.shape[0]) if rows is None else rows(*stage.shape) for stage in stages]
        if any(one.windows.records.is_remote for one in self.sources):
            for stage, own in zip(stages, of_stage, strict=True):
                self._steps_of_part(stage, own)  # raise now, not when the stage begins
        pairs = zip(stages, of_stage, strict=True)
        return (batch for stage, own in pairs for batch in self._iterate(stage, own, start_step, stop_step))

    def _iterate(self, stage: Stage, rows: np.ndarray, start_step: int, stop_step: int | None) -> Iterator[Batch]:
        """Iterate over the batches of one stage; then, or on an error, cancel pending requests to buckets. Inside,
        steps count from the first step of the stage."""
        import grain

        options = grain.ReadOptions(num_threads=self.loader_threads, prefetch_buffer_size=4 * self.loader_threads)
        first = max(start_step - stage.first_step, 0)
        end = (stage.end if stop_step is None else min(stage.end, stop_step)) - stage.first_step
        ahead = self._read_ahead(stage, rows, first, end)
        read = lambda step: self._read(
            self._order[stage.first_step + step], stage, rows, ahead.part(step) if ahead else None
        )
        iterator = iter(grain.MapDataset.range(end).map(read).to_iter_dataset(options))
        iterator.set_state({"next_index": first})
        try:
            yield from iterator
        finally:
            if ahead:
                ahead.close()

    def _steps_of_part(self, stage: Stage, rows: np.ndarray) -> int:
        stored = max(one.windows.stored_bytes() for one in self.sources if one.windows.records.is_remote)
        windows = len(np.unique(rows // stage.parts))
        return steps_of_part(windows, self.shuffle_block, steps_in_blocks(self.shuffle_block, stage.windows), stored)

    def _read_ahead(self, stage: Stage, rows: np.ndarray, first: int, end: int) -> ReadAhead | None:
        """Requester of the records in buckets; None if there are none."""
        remote = [index for index, one in enumerate(self.sources) if one.windows.records.is_remote]
        if not remote:
            return None
        own = np.unique(rows // stage.parts)

        def wanted(begin: int, end: int) -> Wanted:
            numbers = np.stack([self._order[stage.first_step + step][own] for step in range(begin, end)])
            steps = np.broadcast_to(np.arange(end - begin)[:, None], numbers.shape)
            found = []
            for index in remote:
                first, end_of_source = self._first_window[index : index + 2]
                here = (numbers >= first) & (numbers < end_of_source)
                windows = self.sources[index].windows
                records = windows.records_of(numbers[here] - first)
                found.append((windows.records, records.ravel(), np.repeat(steps[here], 2)))
            return found

        return ReadAhead(wanted, self._steps_of_part(stage, rows), self.shuffle_block > 1, first, end)

    def documents(self, step: int) -> list[Origin]:
        """Return the origin of each sequence in batch(step): its folder of shards and the documents in its inputs."""
        stage, found = self.stages.at(step), []
        for index, number in self.places(step):
            source = self.sources[index]
            for begin in range(0, self.context_length, stage.context_length):
                documents = source.windows.segments(number, begin, begin + stage.context_length)
                found.append(Origin(source.folder, set(documents)))
        return found

    def places(self, step: int) -> list[tuple[int, int]]:
        """Return (index in `self.sources`, window number within that source) for each window in batch(step)."""
        return self._places(self.numbers(step))

    def numbers(self, step: int) -> np.ndarray:
        """Return the window numbers of batch(step), counted over all sources in order: (W,) int64."""
        return self._order[step]

    def numbered(self, source: int, windows: np.ndarray) -> np.ndarray:
        """Convert window numbers within a source to numbers counted over all sources in order."""
        return windows + self._first_window[source]

    def heads(self, step: int) -> np.ndarray:
        """Return which targets of batch(step) are the BOS token at the start of a document: (B, T) bool."""
        heads = np.stack([self.sources[index].windows.heads(number) for index, number in self.places(step)])
        return heads.reshape(self.stages.at(step).shape)

    def _read(
        self, numbers: np.ndarray, stage: Stage, rows: np.ndarray | None = None, part: Part | None = None
    ) -> Batch:
        """Return the batch of the windows `numbers`, or only some of its rows."""
        rows = np.arange(stage.shape[0]) if rows is None else rows
        wanted, places = (rows, None) if stage.parts == 1 else np.unique(rows // stage.parts, return_inverse=True)
        read = [self.sources[index].windows.read(number, part) for index, number in self._places(numbers[wanted])]
        inputs, targets, segments, weights = (np.stack(arrays) for arrays in zip(*read, strict=True))
        if stage.parts > 1:
            cut = lambda array_WT: array_WT.reshape(len(read), stage.parts, stage.context_length)
            own = lambda array_WT: cut(array_WT)[places, rows % stage.parts]
            inputs, targets, segments, weights = map(own, (inputs, targets, segments, weights))
            # Number the documents of each sequence from 1; padding stays 0.
            segments = np.maximum(segments - np.maximum(segments[:, :1] - 1, 0), 0)
        return host_batch(inputs, targets, segments, weights)

    def _places(self, numbers: np.ndarray) -> list[tuple[int, int]]:
        firsts = np.array(self._first_window)
        sources = np.searchsorted(firsts, numbers, side="right") - 1
        return list(zip(sources.tolist(), (numbers - firsts[sources]).tolist(), strict=True))


def document_stream(
    folder: Place, split: str, tokenizer_fingerprint: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return all tokens of a split, in order, and the number of each token's document: two (tokens,) int64.

    Only for splits that fit into memory. Raises UsageError or InputError if the split is packed, or if shards are
    missing, damaged, or written with another tokenizer (`tokenizer_fingerprint`; None: any).
    """
    manifest = read_manifest(folder)
    length = manifest.record_length
    check_request(manifest, folder, split, length, tokenizer_fingerprint)
    if manifest.is_packed(split):
        raise UsageError(
            f"The split {split} in {folder} is packed (shards.packing = best_fit), not one stream. Choose another "
            "split, or write shards with packing = concatenate."
        )
    windows = Windows(folder, manifest, split, length)  # a window is a record
    tokens, documents, first_records = [], [], set(windows.first_records)
    for index, record in enumerate(windows.all_records()):
        start = 0 if index in first_records else 1  # the first token repeats the last one of the previous record
        lengths = np.diff(record.segment_starts.astype(np.int64), append=record.valid)
        tokens.append(record.tokens[start : record.valid])
        documents.append(np.repeat(record.document_ids, lengths)[start:])
    return np.concatenate(tokens).astype(np.int64), np.concatenate(documents).astype(np.int64)


def refuse_copies(shards: list[tuple[Place, Shard]]) -> None:
    """Raise InputError if two of the (folder, shard) pairs have the same SHA-256: their documents would count twice."""
    seen: dict[str, Place] = {}
    for folder, shard in shards:
        path = folder / shard.file
        if shard.sha256 in seen:
            raise InputError(
                f"{path} holds the same bytes as {seen[shard.sha256]} (SHA-256 {shard.sha256}), so its documents "
                "would count twice. List each folder of shards once, and write shards again instead of copying them."
            )
        seen[shard.sha256] = path


class WindowOrder:
    """Order in which a run reads its windows: `order[step]` returns the window numbers of a step, (windows of the
    batch,) int64. `sources` has the range of window numbers of each source; `weights` has, for each stage of the run
    (lm/config/stages.py), the weight of each source."""

    def __init__(self, sources: Sequence[range], weights: Sequence[Sequence[float]], seed: int, stages: Stages):
        import grain

        # The first source uses the seed itself. The others use derived seeds, or sources of equal size would have
        # the same order.
        more = (int(np.random.SeedSequence([seed, index]).generate_state(1)[0]) for index in range(1, len(sources)))
        self.streams = [
            grain.MapDataset.range(numbers.start, numbers.stop).seed(one).shuffle().repeat()
            for numbers, one in zip(sources, (seed, *more), strict=True)
        ]
        self.stages = stages
        self.mixtures: list[tuple[int, Turns, list[int]]] = []
        """For each mixture: (windows read before it, turns of the sources, windows of each source read before it)."""
        for now, of_stages in itertools.groupby(zip(weights, stages, strict=True), key=lambda pair: tuple(pair[0])):
            first = next(of_stages)[1].windows_before
            self.mixtures.append((first, Turns(now), self._of_each(first) if self.mixtures else [0] * len(sources)))

    def __getitem__(self, step: int) -> np.ndarray:
        first = self.stages.windows_before(step)
        numbers = range(first, first + self.stages.at(step).windows)
        if len(self.streams) == 1:
            return np.array([self.streams[0][number] for number in numbers], np.int64)
        start, turns, before = self._mixture(first)
        found = (turns[number - start] for number in numbers)
        return np.array([self.streams[source][before[source] + turn] for source, turn in found], np.int64)

    def _mixture(self, number: int) -> tuple[int, Turns, list[int]]:
        return self.mixtures[bisect.bisect_right(self.mixtures, number, key=lambda one: one[0]) - 1]

    def _of_each(self, number: int) -> list[int]:
        """Count how many of the first `number` windows come from each source."""
        first, turns, before = self._mixture(number)
        return [one + more for one, more in zip(before, turns.counts(number - first), strict=True)]

    def windows_read(self, step: int) -> list[int]:
        """Return how many windows of each source the steps 0 to `step` - 1 read."""
        return self._of_each(self.stages.windows_before(step))


class Windows:
    """Random access to the windows of a split: sequences of `context_length` tokens, each with its targets.

    A shard has ceil((tokens - 1) / context_length) windows. In a packed split, each record has record_length /
    context_length windows, and windows do not cross records.
    """

    def __init__(self, folder: Place, manifest: Manifest, split: str, context_length: int):
        self.folder, self.context_length, self.record_length = folder, context_length, manifest.record_length
        self.is_packed = manifest.is_packed(split)
        self.shards = shards = [shard for shard in manifest.splits[split].shards if shard.records]
        if not shards:
            raise InputError(f"The shards of {split!r} in {folder} hold no records. Prepare more documents.")
        self.records = ShardRecords(folder, shards, self.record_length)
        self.first_records = self.records.first
        in_record = self.record_length // context_length
        counts = [shard.records * in_record if self.is_packed else -(-(shard.tokens - 1) // context_length)
                  for shard in shards]  # fmt: skip
        self._first_window = list(itertools.accumulate(counts, initial=0))

    def __len__(self) -> int:
        return self._first_window[-1]

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return (inputs, targets, segment ids, weights), each (context_length,)."""
        return self.read(number)

    def read(self, number: int, part: Part | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return `self[number]`: (inputs, targets, segment ids, weights). Takes records from `part`, the responses to
        earlier requests (see lm.data.read_ahead), if it has them."""
        record, start = self._locate(number, part)
        return cut_window(record, start, self.context_length)

    def stored_bytes(self) -> int:
        """Return the mean size in bytes that a window takes in the files."""
        return max(self.records.stored_bytes() * len(self.records) // len(self), 1)

    def records_of(self, numbers: np.ndarray) -> np.ndarray:
        """Return the numbers of the first and the last record that each given window needs: (windows, 2) int64."""
        first_window, first_record = np.array(self._first_window), np.array(self.first_records)
        shards = np.searchsorted(first_window, numbers, side="right") - 1
        begins = (numbers - first_window[shards]) * self.context_length
        first = first_record[shards] + begins // self.record_length
        last = first_record[shards] + (begins + self.context_length - 1) // self.record_length
        return np.stack([first, np.minimum(last, first_record[shards + 1] - 1)], axis=1)

    def segments(self, number: int, begin: int = 0, end: int | None = None) -> list[int]:
        """Return the document numbers of a window's segments in order, so that item i belongs to segment id i + 1. Only
        the inputs at positions `begin` to `end` - 1 count."""
        record, start = self._locate(number)
        start, end = start + begin, min(start + (self.context_length if end is None else end), record.valid)
        if start >= end:
            return []
        first, last = np.searchsorted(record.segment_starts, [start, end - 1], side="right")
        return record.document_ids[first - 1 : last].tolist()

    def windows_of(self, record: int, begin: int, end: int) -> range:
        """Return the numbers of the windows with any of the positions `begin` to `end` - 1 of a record as inputs."""
        shard = bisect.bisect_right(self.first_records, record) - 1
        before = (record - self.first_records[shard]) * self.record_length
        first, last = (before + begin) // self.context_length, (before + end - 1) // self.context_length
        start, stop = self._first_window[shard : shard + 2]
        return range(start + first, min(start + last + 1, stop))

    def heads(self, number: int) -> np.ndarray:
        """Return which targets of a window are the BOS token at the start of a document: (context_length,) bool."""
        record, start = self._locate(number)
        starts = record.segment_starts[1:]  # a record's first segment may start inside a document
        return np.isin(start + 1 + _positions(self.context_length), starts)

    def _locate(self, number: int, part: Part | None = None) -> tuple[SequenceRecord, int]:
        """Return (record that contains the window, or two records joined; offset of the window in it)."""
        shard = bisect.bisect_right(self._first_window, number) - 1
        place, start = divmod((number - self._first_window[shard]) * self.context_length, self.record_length)
        index = self.first_records[shard] + place
        record = self.record(index, part)
        if start + self.context_length > self.record_length:  # the window spans two records
            is_last = index + 1 == self.first_records[shard + 1]
            record = joined(record, None if is_last else self.record(index + 1, part))
        return record, start

    def record(self, index: int, part: Part | None = None) -> SequenceRecord:
        """Read a record; `index` counts over all shards. Takes it from `part` if it was requested before. Raises
        InputError if the record is damaged, StorageError if the bucket does not respond."""
        run = part.get((self.records.owner, index)) if part else None
        try:
            return from_bytes(run.result().record(index) if run else self.records.read(index))
        except StorageError:
            raise
        except InputError as error:
            raise self._damaged(index, error) from error

    def all_records(self) -> Iterator[SequenceRecord]:
        """Iterate over all records in order, with few requests to a bucket. Raises InputError if one is damaged."""
        index = 0
        try:
            while index < len(self.records):
                begin, end = index, self.records.run_end(index)
                run = self.records.read_run(begin, end)
                for index in range(begin, end):
                    yield from_bytes(run.record(index))
                index = end
        except StorageError:
            raise
        except InputError as error:
            raise self._damaged(index, error) from error

    def _damaged(self, index: int, error: InputError) -> InputError:
        return InputError(f"{self.records.name_of(index)} cannot be read: {error} {WRITE_AGAIN}")


WRITE_AGAIN = (
    "Restore the shard from a copy, or delete the tokens folder and write it again: python -m launch.write_shards"
)


def joined(first: SequenceRecord, second: SequenceRecord | None) -> SequenceRecord:
    """Concatenate two consecutive records of a shard. If `first` is the last record, `second` is None: add padding."""
    if second is None:
        return dataclasses.replace(first, tokens=np.pad(first.tokens, (0, first.length)))
    # The first token of the second record repeats the last one of the first record.
    return SequenceRecord(
        tokens=np.concatenate([first.tokens, second.tokens[1:]]),
        valid=first.length + second.valid,
        segment_starts=np.concatenate([first.segment_starts, second.segment_starts[1:] + np.uint32(first.length)]),
        document_ids=np.concatenate([first.document_ids, second.document_ids[1:]]),
    )


@functools.cache
def _positions(context_length: int) -> np.ndarray:
    return np.arange(context_length)


def cut_window(
    record: SequenceRecord, start: int, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (inputs, targets, segment ids, weights), each (length,), of the window at offset `start` of a record."""
    positions = start + _positions(length)
    tokens = record.tokens[start : start + length + 1].astype(np.int32)
    segments = np.searchsorted(record.segment_starts, positions, side="right").astype(np.int32)
    segments -= segments[0] - 1
    segments[positions >= record.valid] = 0
    weights = (positions + 1 < record.valid).astype(np.float32)
    if record.trained is not None:
        weights *= record.trained[positions + 1]
    return tokens[:-1], tokens[1:], segments, weights

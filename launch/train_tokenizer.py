"""Train the tokenizer on the run's documents, or load a published one."""

import itertools
import time
from pathlib import Path

from configs.experiment import Experiment
from launch import prepare_documents
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.run_paths import RunPaths

SAMPLE_DOCUMENTS = 200  # for the printed bytes per token


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """Return the fingerprint of a tokenizer that is loaded from a path; {} for a published one, which never changes."""
    from lm.tokenizer.published import PUBLISHED, load_published

    load = experiment.tokenizer.load
    return {"fingerprint of tokenizer.load": load_published(load).fingerprint} if load and load not in PUBLISHED else {}


def make(experiment: Experiment, run: Path) -> None:
    from data_prep.shards.sample import sample_texts
    from data_prep.shards.tokenize import document_files, read_texts
    from lm.tokenizer import save, train_tokenizer

    start = time.perf_counter()
    files = document_files(RunPaths(run).documents)
    sampling = RunPaths(run).sampling
    texts = sample_texts(files, experiment.tokenizer.train_characters, sampling, experiment.engine)
    tokenizer = train_tokenizer(texts, experiment.tokenizer)
    save(tokenizer, RunPaths(run).tokenizer)
    sample = list(itertools.islice(read_texts(files), SAMPLE_DOCUMENTS))
    tokens = sum(map(len, tokenizer.encode_batch(sample)))
    bytes_per_token = sum(len(text.encode()) for text in sample) / max(tokens, 1)
    origin = experiment.tokenizer.load or f"{tokenizer.characters:,} characters"
    print(
        f"tokenizer: {tokenizer.vocab_size} symbols from {origin} in "
        f"{time.perf_counter() - start:.1f} s; {bytes_per_token:.2f} bytes per token in {len(sample)} documents"
    )
    if tokenizer.vocab_size < experiment.tokenizer.vocab_size:
        print(
            f"tokenizer: tokenizer.vocab_size = {experiment.tokenizer.vocab_size}, but the documents give only "
            f"{tokenizer.vocab_size} symbols; the other rows of the model are unused"
        )


STAGE = Stage(
    name="tokenizer",
    script="launch.train_tokenizer",
    after=(prepare_documents.STAGE,),
    settings=lambda experiment: {"tokenizer": experiment.tokenizer},
    external_inputs=external_inputs,
    make=make,
    direct=True,
    intermediate=(RunPaths.sampling,),
    outputs=(RunPaths.tokenizer,),
)

if __name__ == "__main__":
    run_stage_command(STAGE, "tokenizer")

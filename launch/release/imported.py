"""Create a run folder for a model that was trained elsewhere: its config, its tokenizer and a checkpoint at step 0."""

import contextlib
import dataclasses
import hashlib
import json
import math
from pathlib import Path

from configs import fineweb, own_text
from configs.experiment import Experiment
from configs.experiment.run_folder import experiment_json
from launch.release.model_card import RECORD
from launch.release.out_folder import files_in, partial_folder
from lm.chat.messages import Message
from lm.chat.sandbox import TemplateError, TemplateLimitError
from lm.chat.template import ChatTemplate
from lm.checkpoints.from_parameters import write_parameters
from lm.config import StartConfig, TokenizerConfig
from lm.config.model import least_parameters
from lm.errors import UsageError
from lm.formats.source import SourceModel, check_symbols
from lm.run_paths import RunPaths
from lm.storage import write_json, writing
from lm.tokenizer import save


def write_run(source: SourceModel, run: Path, origin: str, scan_layers: bool = False) -> None:
    """Create the run folder `run` for an imported model, atomically. `origin` is the name of the source, for people.
    Raises UsageError if `run` exists and is not empty, InputError if the disk cannot be written."""
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise UsageError(f"RUN {run} already exists. Nothing was changed. Give a folder that does not exist yet.")
    check_symbols(source.tokenizer.vocab_size, source.config, origin)
    target = run.resolve()
    config = dataclasses.replace(source.config, scan_layers=scan_layers)
    experiment = experiment_of(dataclasses.replace(source, config=config), target)
    with contextlib.ExitStack() as stack:
        with writing(run):
            partial = stack.enter_context(partial_folder(target))
        fill(RunPaths(partial), source, experiment, origin)
        with writing(run):
            if target.exists():
                target.rmdir()
            partial.rename(target)


TRIALS: tuple[list[Message], ...] = (
    [{"role": "user", "content": "Hi"}],
    [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "What is 6 times 7?"},
        {"role": "assistant", "content": "42"},
        {"role": "user", "content": "Thanks"},
    ],
)
"""Conversations with which a chat template is tried."""


def with_tried_template(source: SourceModel) -> SourceModel:
    """Return the model without its chat template, and with a note, if the template is not valid Jinja or exceeds its
    limits on a short conversation. A template may refuse conversations."""
    if not source.tokenizer.chat_template:
        return source
    try:
        template = ChatTemplate(source.tokenizer)
        for messages in TRIALS:
            try:
                template.text(messages, reply=True)
            except TemplateLimitError:
                raise
            except TemplateError:  # by raise_exception, or because it needs more than a plain conversation
                continue
    except TemplateError as error:
        note = f"{error} The model is imported without it: it can continue texts, but not chat."
        tokenizer = dataclasses.replace(source.tokenizer, chat_template="")
        return dataclasses.replace(source, tokenizer=tokenizer, notes=(*source.notes, note))
    return source


def fill(run: RunPaths, source: SourceModel, experiment: Experiment, origin: str) -> None:
    """Write all files of the run folder. The last file is the marker: a folder without a marker is not a run folder."""
    fingerprint = source.tokenizer.fingerprint
    with writing(run.root):
        save(source.tokenizer, run.tokenizer)
        run.imported.mkdir()
        for name, data in source.files.items():
            (run.imported / name).write_bytes(data)
        record = {"origin": origin, "tokenizer": fingerprint, "dtypes": dict(source.dtypes)}
        write_json(run.imported / RECORD, record)
        run.config_json.write_text(experiment_json(experiment), encoding="utf-8")
    about = {"step": 0, "steps": 0, "tokenizer": fingerprint, "imported_from": origin}
    write_parameters(run.checkpoint(0), experiment.model, source.parameters, about)
    with writing(run.root):
        run.stages.mkdir()
        settings = {"imported": {"origin": origin}}
        key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        marker = {  # like that of a finished stage
            "key": key, "settings": settings, "external_inputs": {}, "replaces": [], "continued_from": [],
            "seconds": 0.0, "files": files_in(run.root),
        }  # fmt: skip
        write_json(run.marker("imported"), marker)


def experiment_of(source: SourceModel, run: Path) -> Experiment:
    """Return the config of an imported run: this model and tokenizer, and settings with which another run can continue
    its training. Settings that depend on the size of the texts are chosen when that run has texts
    (configs/own_text.py). `run` is the absolute path of the folder."""
    base, context = own_text.get_config(), source.config.context_length
    symbols, paths = source.tokenizer.vocab_size, RunPaths(run)
    # 1e-4 for 100 million parameters, falling with the square root of their number, from 1e-5 to 1e-3
    rate = float(f"{min(max(1e-4 * math.sqrt(1e8 / least_parameters(source.config)), 1e-5), 1e-3):.1e}")
    optimizer = dataclasses.replace(
        fineweb.get_config().train.optimizer, learning_rate=rate, final_learning_rate=rate / 10, warmup_steps=0
    )
    train = dataclasses.replace(
        base.train, steps=2_000, batch_size=1, optimizer=optimizer, sample_tokens=min(64, context),
        loss_chunks=math.gcd(8, context), snapshot_steps=(), start=StartConfig(checkpoint=str(paths.checkpoint(0))),
    )  # fmt: skip
    return dataclasses.replace(
        base,
        tokenizer=TokenizerConfig(
            vocab_size=symbols, split_pattern="gpt2", train_characters=500_000_000, load=str(paths.tokenizer)
        ),
        shards=dataclasses.replace(
            base.shards, record_length=max(4096, context), token_dtype="uint16" if symbols <= 2**16 else "uint32"
        ),
        model=source.config,
        train=train,
        evaluate=dataclasses.replace(base.evaluate, stride=max(1, min(512, context // 2))),
        sample=dataclasses.replace(base.sample, tokens=min(256, context)),
    )

"""Finetune the model of a run on conversations, to get an assistant.

    python -m launch.finetune runs/demo configs/assistant.py --workdir runs/assistant
    python -m launch.finetune runs/smollm2 configs/finetune.py --chat.conversations talks.jsonl --workdir runs/mine
    python -m launch.finetune runs/smollm2 configs/finetune.py ... --train.lora.rank 16
    python -m launch.finetune runs/assistant          resumes it

Trains like launch.train, but only on what the assistant writes: same checkpoints, mesh, resume. launch.chat talks to
the result. With train.lora.rank, only low-rank adapters are trained; checkpoints have them merged into the model.
"""

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from configs.experiment import Experiment
from configs.experiment.run_folder import RunFolder
from data_prep.sources.sizes import ConversationSizes
from launch import train
from launch.stages.command import Measure, run_command
from launch.stages.processes import require_one_process
from launch.stages.stage import Stage, run_stage
from launch.stages.trained import say
from lm.checkpoints.manifest import files_sha256, find_parameters, folders_of
from lm.compilation_cache import keep_compiled_programs
from lm.config import ChatConfig, StartConfig
from lm.errors import UsageError, print_untrusted
from lm.model.cost import host_bytes, on_host_alone
from lm.run_paths import RunPaths
from lm.storage import appearing, file_sha256, matching_paths, note_write, shown_place
from lm.tokenizer import Tokenizer, load, save
from lm.trusted_code import code_hashes, named

WRITERS = ("page_questions",)
"""Shipped functions that write conversations, by the names of chat.written_by."""
SHOWN = 5
"""Rows left out that are printed for each reason."""


def prepared(experiment: Experiment, workdir: Path) -> Experiment:
    """Fill in what follows from chat.base: the tokenizer with its chat template, rows of the embeddings for tokens that
    it adds, and the parameters to start from. Raises UsageError if there is no base, and like `with_template`."""
    chat = experiment.chat
    check_sources(chat)
    base = RunFolder(Path(chat.base))
    if workdir.resolve() == Path(chat.base).resolve():
        raise UsageError(
            f"--workdir {workdir} is the run to start from. Nothing was changed. Choose another --workdir."
        )
    before, tokenizer = tokenizers(chat)
    new = new_tokens(chat, before, tokenizer)
    if experiment.train.lora.rank and new:
        raise UsageError(
            f"train.lora.rank = {experiment.train.lora.rank} freezes the embeddings, but {chat.base} has never read "
            f"{len(new)} tokens of the chat template, so their rows would never be trained. Choose a chat.template "
            "whose tokens it has read, or finetune all parameters (train.lora.rank = 0)."
        )
    start = find_parameters(folders_of(base), chat.step)[0]  # training verifies its files
    chat = dataclasses.replace(chat, step=int(start.name))
    if new:
        start = RunPaths(workdir).start / "0"
    model = experiment.model
    rows = max(model.vocab_size, tokenizer.vocab_size)
    return dataclasses.replace(
        experiment,
        chat=chat,
        model=dataclasses.replace(model, vocab_size=rows),
        tokenizer=dataclasses.replace(
            experiment.tokenizer, vocab_size=tokenizer.vocab_size, load=str(base.tokenizer), algorithm="bpe",
            special_tokens=("<|endoftext|>",), allow_fewer=False,
        ),
        shards=dataclasses.replace(
            experiment.shards, record_length=max(experiment.shards.record_length, model.context_length),
            token_dtype="uint16" if rows <= 2**16 else "uint32",
        ),
        train=dataclasses.replace(experiment.train, start=StartConfig(checkpoint=str(start))),
    )  # fmt: skip


def check_sources(chat: ChatConfig) -> None:
    """Raise UsageError if there is no base or there are no conversations."""
    if not chat.base:
        raise UsageError(
            "chat.base is empty: launch.finetune starts from a trained run. Give it before the config: python -m "
            "launch.finetune RUN CONFIG.py"
        )
    if not chat.conversations and not chat.written_by:
        raise UsageError(
            "chat.conversations and chat.written_by are empty, so there is nothing to finetune on. Give files with "
            "conversations (--chat.conversations FILE), or a function that writes them."
        )


def conversation_sizes(experiment: Experiment) -> ConversationSizes:
    """Measure the conversations with the tokenizer and the chat template of the base. Malformed ones count as nothing:
    the stage reports them. Raises the errors of `check_sources`, `conversation_files` and `read_conversations`."""
    from data_prep.conversations import read_conversations, sizes_of, valid_rows
    from lm.chat.template import ChatTemplate

    chat = experiment.chat
    check_sources(chat)
    silent = lambda place, reason, text: None
    found = (one for path in conversation_files(experiment) for one in read_conversations(path, silent))
    if chat.written_by:
        found = itertools.chain(found, valid_rows("", enumerate(writer(chat.written_by)(Path(chat.base))), silent))
    memory = host_bytes() if on_host_alone() else 0
    return sizes_of(found, ChatTemplate(tokenizers(chat)[1]), memory or 0)


def tokenizers(chat: ChatConfig) -> tuple[Tokenizer, Tokenizer]:
    """Return (tokenizer of the base, the same with its chat template). Raises UsageError like `with_template`."""
    from lm.chat.templates import with_template

    before = load(RunPaths(chat.base).tokenizer)
    return before, with_template(before, chat.template)


def new_tokens(chat: ChatConfig, before: Tokenizer, tokenizer: Tokenizer) -> list[int]:
    """Ids of the special tokens of the chat template that are absent from the base's training data: missing from its
    vocabulary, or only reserved. Training pushes the embeddings of such reserved tokens away from all others."""
    from lm.chat.templates import TEMPLATES

    trained_here = not RunFolder(Path(chat.base)).experiment().tokenizer.load and not before.chat_template
    reserved = {token for one in TEMPLATES.values() if one.jinja == tokenizer.chat_template for token in one.tokens}
    new = lambda name: name not in before.special_tokens or (trained_here and name in reserved)
    return sorted(id for name, id in tokenizer.special_tokens.items() if new(name))


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """SHA-256 of the files of conversations, of the function that writes more, and of the base's tokenizer and
    checkpoint."""
    chat = experiment.chat
    tokenizer = load(RunPaths(chat.base).tokenizer)
    found: dict[str, object] = {f"SHA-256 of {path}": file_sha256(path) for path in conversation_files(experiment)}
    found["tokenizer of the base"] = tokenizer.fingerprint
    found["SHA-256 of its chat template"] = hashlib.sha256(tokenizer.chat_template.encode()).hexdigest()
    found["SHA-256 of its checkpoint"] = files_sha256(find_parameters(folders_of(RunPaths(chat.base)), chat.step)[0])
    if chat.written_by not in ("", *WRITERS):
        found |= code_hashes({"chat.written_by": [chat.written_by]})
    return found


def conversation_files(experiment: Experiment) -> list[Path]:
    """Files that chat.conversations names, sorted. Raises UsageError if a pattern matches none."""
    found = []
    for pattern in experiment.chat.conversations:
        matches = matching_paths(pattern)
        if not matches or not all(one.is_file() for one in matches):
            raise UsageError(f"chat.conversations names {pattern}, where there is no file. Give a file or a pattern.")
        found += matches
    return found


def writer(name: str) -> Callable[[Path], Iterable[dict[str, Any]]]:
    """The function that chat.written_by names. Raises UsageError if there is none, or its code is not trusted."""
    from configs.recipes import page_questions

    return named(name, {"page_questions": page_questions.conversations}, "chat.written_by")


def make(experiment: Experiment, run: Path) -> None:
    from data_prep.conversations import read_conversations, to_line, write_conversation_shards
    from lm.chat.template import ChatTemplate

    chat, paths = experiment.chat, RunPaths(run)
    base = RunFolder(Path(chat.base))
    before, tokenizer = tokenizers(chat)
    files = conversation_files(experiment)
    if chat.written_by:
        written, found = paths.conversations / "written.jsonl", writer(chat.written_by)(base.root)
        if not isinstance(found, Iterable):
            raise UsageError(f"chat.written_by is {chat.written_by}, which returned {found!r} and not conversations.")
        with appearing(written) as partial, partial.open("w", encoding="utf-8") as out:
            out.writelines(map(to_line, found))
        files.append(written)
        print(f"conversations: those of {chat.written_by} are in {shown_place(written)}", flush=True)
    reasons = Counter()

    def report(place: str, reason: str, text: str) -> None:
        reasons[reason] += 1
        if reasons[reason] <= SHOWN:
            print_untrusted(f"conversations: left out {place}: {text} [{reason}]")

    all_of_them = (one for path in files for one in read_conversations(path, report))
    length = experiment.model.context_length
    manifest, cut = write_conversation_shards(
        all_of_them, ChatTemplate(tokenizer), paths.tokens, length, chat.validation_fraction, report,
        held_out=chat.held_out,
    )  # fmt: skip
    if new := new_tokens(chat, before, tokenizer):
        # The rows of the new tokens are the mean of all other rows.
        keep_compiled_programs()  # before JAX is imported
        import numpy as np

        from lm.checkpoints.from_parameters import write_parameters
        from lm.model.param_names import named_leaves
        from lm.parallel import one_device_mesh

        loaded = base.load(one_device_mesh(base.experiment().model), experiment.chat.step)
        parameters = {name: np.asarray(leaf) for name, leaf in named_leaves(loaded.model).items()}
        for name, axis in {"embedding": 0, "head.weight": 1}.items():
            if name in parameters:
                rows = np.moveaxis(parameters[name], axis, 0)
                known = np.delete(rows, [id for id in new if id < len(rows)], axis=0)
                mean = known.mean(axis=0, dtype=np.float32).astype(rows.dtype)
                rows = np.concatenate([rows, np.repeat(mean[None], experiment.model.vocab_size - len(rows), axis=0)])
                rows[new] = mean
                parameters[name] = np.moveaxis(rows, 0, axis)
        write_parameters(
            paths.start / "0", experiment.model, parameters, {"step": 0, "steps": 0, "tokenizer": tokenizer.fingerprint}
        )
        for file in (paths.start / "0").rglob("*"):
            note_write(file)
    save(tokenizer, paths.tokenizer)
    of_split = ", ".join(f"{split.documents:,} in {name}" for name, split in manifest.splits.items())
    print(f"conversations: {of_split}, in {sum(split.records for split in manifest.splits.values()):,} sequences of "
          f"{length:,} tokens")  # fmt: skip
    if cut:
        print(f"conversations: cut after {length:,} tokens: {cut:,}")
    for name, count in reasons.items():
        print(f"conversations: left out, {name}: {count:,}")


CONVERSATIONS = Stage(
    name="conversations",
    script="launch.finetune",
    after=(),
    after_finetuning=(),
    settings=lambda experiment: {"chat": experiment.chat, "context_length": experiment.model.context_length},
    external_inputs=external_inputs,
    make=make,
    outputs=(RunPaths.tokenizer, RunPaths.tokens, RunPaths.conversations, RunPaths.start),
    optional=(RunPaths.conversations, RunPaths.start),
)
TRAIN = dataclasses.replace(train.STAGE, script="launch.finetune", after_finetuning=(CONVERSATIONS,))


@dataclasses.dataclass(frozen=True)
class Options:
    until: Literal["conversations", "train"] = "train"
    """Last stage to run. Before training in several processes, run the stage conversations in one."""


def run(experiment: Experiment, workdir: Path, source: Path | None = None, options: Options = Options()) -> None:
    if source is not None:
        raise UsageError(
            f"--from {source} reuses stages of pretraining; launch.finetune starts from chat.base instead."
        )
    if not RunPaths(workdir).marker(CONVERSATIONS.name).exists():
        require_one_process(
            "The stage conversations",
            "Run this command in one first, with NUM_PROCESSES=1 and --until conversations; then without --until in "
            "all.",
        )
    experiment = prepared(experiment, workdir)
    for stage in (CONVERSATIONS, TRAIN)[: 1 if options.until == "conversations" else 2]:
        if not run_stage(stage, experiment, workdir):
            say(f"{stage.name}: up to date")
    if options.until == "train":
        say(f"finetune: done. To talk to it: python -m launch.chat {shown_place(workdir)}")


if __name__ == "__main__":
    run_command(
        "launch.finetune", run, ("chat", "train"), options=Options, from_run="chat",
        measure=Measure(ConversationSizes, CONVERSATIONS.name, conversation_sizes),
    )  # fmt: skip

"""Write the report of the run: report/index.html, one page that works offline, and summary.json.

    python -m launch.report runs/demo
    python -m launch.report runs/assistant --chat.questions "What is fog?" "What is 6 times 7?"

The report of a finetuned or reinforced run has its curves and, instead of the summary, recorded conversations: the
assistant answers each of chat.questions once, with its tools and the likeliest tokens, in samples/chat.jsonl.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from configs.experiment import Experiment
from configs.experiment.run_folder import Loaded, RunFolder
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.compilation_cache import keep_compiled_programs
from lm.errors import UsageError, print_untrusted, shown
from lm.run_paths import RunPaths
from lm.storage import file_sha256, write_atomically

BASE_INDEX = "SHA-256 of the corpus index of the base"


def make(experiment: Experiment, workdir: Path) -> None:
    keep_compiled_programs()  # before JAX is imported
    from viewer.run_folder import read_run, summarize
    from viewer.window.inspections import export_html
    from viewer.window.window_run import WindowRun

    paths, name = RunPaths(workdir), workdir.resolve().name
    if experiment.is_assistant:
        loaded = RunFolder(workdir).load(experiment=experiment)
        if experiment.chat.questions:
            write_atomically(paths.chat_samples, "".join(conversations(experiment, loaded)))
        else:
            paths.chat_samples.unlink(missing_ok=True)  # of an earlier report
            print('report: no conversations, because chat.questions is empty. Add: --chat.questions "QUESTION"')
    else:
        stages = experiment.train.stages(experiment.model.context_length)
        run = read_run(workdir, experiment.documents, stages.windows_before)
        for damage in run.damage:
            print_untrusted(f"report: {damage} The report says so.")
        loaded = RunFolder(workdir).load(experiment=experiment)
        write_atomically(paths.summary, json.dumps(summarize(run), indent=1, allow_nan=False) + "\n")
    write_atomically(paths.report_page, export_html(WindowRun(experiment, workdir, loaded, name)))


def conversations(experiment: Experiment, loaded: Loaded) -> Iterator[str]:
    """Yield, as a line of JSON, the answer to each of chat.questions, with calls of tools, their results and sources.
    Raises UsageError for a question that does not fit into the context."""
    from data_prep.conversations import to_line
    from lm.chat.assistant import Answer, generate_answers
    from lm.chat.template import ChatTemplate
    from lm.chat.tools import tools_of
    from lm.inference.engine import Engine
    from lm.inference.requests import SamplingParams
    from lm.serving.chat import as_step

    template, tools = ChatTemplate(loaded.tokenizer), tools_of(experiment.chat.base, loaded.tokenizer)
    engine = Engine(loaded.model, experiment.model, loaded.tokenizer, slots=1, mesh=loaded.mesh)
    params = SamplingParams(max_tokens=experiment.model.context_length, temperature=0.0)
    asked = {question: [{"role": "user", "content": question}] for question in experiment.chat.questions}
    for question, messages in asked.items():
        tokens = len(template.encode(messages, reply=True).ids)
        if tokens >= engine.context:
            raise UsageError(
                f"chat.questions has {shown(question)}, which has {tokens:,} tokens; the context holds "
                f"{engine.context:,}, including the answer. Shorten it."
            )
    for question in experiment.chat.questions:
        answer = Answer(template, tools, asked[question], params, engine.context)
        steps = [step for _, step in generate_answers(engine, answer) if step.message is not None]
        last = as_step(steps[-1]) | {"finish_reason": steps[-1].finish_reason}
        yield to_line({"messages": [*asked[question], *map(as_step, steps[:-1]), last]})


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """SHA-256 of the index that the assistant searches; {} if there is none."""
    if not experiment.chat.base:
        return {}
    from lm.corpus_index.format import INDEX

    index = RunPaths(experiment.chat.base).corpus_index / INDEX
    return {BASE_INDEX: file_sha256(index)} if index.is_file() else {}


def only_conversations_differ(old: dict, new: dict) -> bool:
    """Return whether the settings and external inputs of two markers are equal, except for the assistant's questions,
    its training, and the index that it searches."""
    may_differ = {"questions", BASE_INDEX, "<conversations>", "<train>"}
    return all(old.get(name) == new.get(name) for name in (old.keys() | new.keys()) - may_differ)


STAGE = Stage(
    name="report",
    script="launch.report",
    after=(
        "launch.fetch_pages:STAGE", "launch.extract_texts:STAGE", "launch.prepare_documents:STAGE",
        "launch.train_tokenizer:STAGE", "launch.write_shards:STAGE", "launch.train:STAGE", "launch.evaluate:STAGE",
        "launch.sample:STAGE",
    ),
    after_finetuning=("launch.finetune:CONVERSATIONS", "launch.finetune:TRAIN"),
    after_reinforcement=("launch.reinforce:STAGE",),
    settings=lambda experiment: {"questions": experiment.chat.questions} if experiment.is_assistant else {},
    external_inputs=external_inputs,
    only_inputs_differ=only_conversations_differ,
    make=make,
    outputs=(RunPaths.report, RunPaths.summary, RunPaths.chat_samples),
    optional=(RunPaths.summary, RunPaths.chat_samples),
)  # fmt: skip

if __name__ == "__main__":
    run_stage_command(STAGE, "chat.questions")

"""Runs for the window: one whose texts and names try to be run as scripts, an imported Llama, and an assistant."""

import dataclasses
import html
import json
import random
import shutil
from pathlib import Path
from typing import Any

from tests.corpus import texts, tiny_experiment, web_pages
from tests.run_files import REPOSITORY

STORIES = REPOSITORY / "../shared/data/models/stories260K"
DEMO = REPOSITORY / "runs/demo"
BIDI = "\u202e\u2066"  # from right to left; an isolate that is not closed
SCRIPT = "<script>window.hacked = 1</script>"
HANDLER = "<img src=x onerror=window.hacked=1>"
ENTITY = "</script></textarea></title>\u2028&lt;svg onload=window.hacked=1&gt;"
LONG = "".join(random.Random(0).choices("abcdefgh", k=10**6))
"""A line of 1 MB without a blank."""
LINES = {
    "script": SCRIPT, "handler": HANDLER, "entity": ENTITY, "bidi": f"{BIDI}reversed {BIDI} text\u200f", "long": LONG,
    "attribute": "\"' onfocus=window.hacked=1 autofocus x=\"", "template": "${window.hacked = 1} {{ 7 * 7 }} %s",
    "tag": "<textarea><style>*{display:none}</style><base href=https://a.example/><meta http-equiv=refresh content=0>",
}  # fmt: skip
NAME = f"{HANDLER} '\" {BIDI} &amp; mill"
"""Names of the run's folder and of its file of pages."""
URLS = (
    "javascript:window.hacked=1//", "https://outside.example/\"onmouseover=\"window.hacked=1", "data:text/html,<b>",
    f"https://outside.example/{SCRIPT}", f"https://outside.example/{BIDI}", "https://outside.example/?" + "a" * 5000,
)  # fmt: skip


def hostile_pages() -> list:
    """24 tales, a copy of one, short pages, and one page for each hostile line, between paragraphs."""
    pages, odd = web_pages(24), []
    for number, (line, tale) in enumerate(zip(LINES.values(), texts(len(LINES), seed=5), strict=True)):
        paragraphs = [*tale.split("\n")[:2], line, tale.split("\n")[2]]
        body = "".join(f"<p>{html.escape(one)}</p>" for one in paragraphs)
        changes = {
            "url": URLS[number % len(URLS)],
            "id": f"<urn:hostile:{number}>",
            "body": f"<html><body>{body}".encode(),
        }
        odd.append(dataclasses.replace(pages[0], **changes))
    short = [
        dataclasses.replace(pages[0], url=f"https://short.example/{number}", id=f"<urn:short:{number}>",
                            body=f"<html><body><p>Nothing to see {number}: {html.escape(line[:500])}".encode())
        for number, line in enumerate(LINES.values())
    ]  # fmt: skip
    return [*pages, dataclasses.replace(pages[3], url="https://copy.example/", id="<urn:copy>"), *odd, *short]


def copy_demo(folder: Path) -> Path:
    """The demo's run as `make demo` left it, without the parts that tests would change, and the index of its texts."""
    from lm.corpus_index.build import build_index
    from lm.run_paths import RunPaths

    run = Path(shutil.copytree(DEMO, folder / "demo", ignore=shutil.ignore_patterns("report", ".lock")))
    if not RunPaths(run).corpus_index.exists():
        build_index(RunPaths(run).tokens, RunPaths(run).corpus_index)
    return run


def hostile_experiment(warc: str) -> Any:
    """The tiny experiment on these archives, with a filter that keeps words of any length."""
    tiny = tiny_experiment()
    documents: Any = tiny.documents  # a field for each filter of the recipe
    words = dataclasses.replace(documents.gopher_quality, max_mean_word_length=1e9)
    documents = dataclasses.replace(documents, gopher_quality=words)
    return dataclasses.replace(tiny, pages=dataclasses.replace(tiny.pages, warc=(warc,)), documents=documents)


def write_hostile_run(folder: Path) -> Path:
    """Path of a run built by the stages, from pages to training and the index of its texts, in a folder with a hostile
    name.

    The model has a checkpoint at each of steps 4, 8 and 12, and has written hostile samples.
    """
    from data_prep.warc import write_pages
    from launch import index_corpus, pretrain
    from launch.stages.stage import run_stage
    from lm.storage import write_json

    run, source = folder / NAME, folder / f"{NAME}.warc.gz"
    write_pages(source, hostile_pages())
    experiment = hostile_experiment(str(source))
    experiment = dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, sample_every=0))
    for script in (*pretrain.SCRIPTS[:6], index_corpus):
        run_stage(script.STAGE, experiment, run, None)
    for step in (4, 8, 12):
        text = f"The miller {SCRIPT}{HANDLER}{BIDI}"
        write_json(
            run / f"samples/step-{step:08d}.json",
            {"step": step, "prompt": "The miller", "temperature": 0.8, "text": text},
        )
    for name in (SCRIPT.replace("/", "\u2215"), "٣", "12.partial", f"{HANDLER}"):
        (run / "checkpoints" / name).mkdir()
    return run


def write_stories_run(folder: Path) -> Path:
    """Path of stories260K as launch.import_model writes it."""
    from launch.import_model import open_source
    from launch.release.imported import write_run
    from tests.bench.interop_greedy import stories_tokenizer

    write_run(open_source(STORIES / "hf", stories_tokenizer()), folder / "stories260K", "stories260K")
    return folder / "stories260K"


def write_assistant_run(folder: Path, assistant: Path) -> Path:
    """Path of a copy of the finetuned run (tests/assistant_run.py) with recorded conversations, one of them hostile."""
    from tests.assistant_run import PAGES, talks

    run = Path(shutil.copytree(assistant, folder / "assistant"))
    question, call, result, answer = talks()[0]
    source = {"url": URLS[0], "split": "train", "document": 0, "passage": ENTITY + next(iter(PAGES.values()))}
    hostile = {"role": "assistant", "content": f"{HANDLER}<|end|>{BIDI}", "finish_reason": "length"}
    recorded = [
        [question, call, result | {"sources": [source, {"document": "0"}, 7]}, answer],
        [{"role": "user", "content": SCRIPT}, hostile],
        [{"role": "user", "content": ENTITY}, call],
    ]
    (run / "samples").mkdir(exist_ok=True)
    lines = [json.dumps({"messages": one}) for one in recorded]
    (run / "samples/chat.jsonl").write_text("\n".join([*lines, '{"messages": 7}', "{"]), encoding="utf-8")
    return run


def write_exported(run: Path, folder: Path) -> Path:
    """Write the exported page of the report, as launch.report does; return its path."""
    from configs.experiment.run_folder import RunFolder
    from lm.parallel import one_device_mesh
    from viewer.window.inspections import export_html
    from viewer.window.window_run import WindowRun

    given = RunFolder(run)
    loaded = given.load(one_device_mesh(given.experiment().model))
    window = WindowRun(loaded.experiment, run, loaded, run.name)
    out = run / "report/index.html"
    out.parent.mkdir(exist_ok=True)
    out.write_text(export_html(window), encoding="utf-8")
    return out

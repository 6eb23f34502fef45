"""README.md of a release, generated from the run folder: data, training, evaluation and limits of the model."""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from configs.experiment import Experiment
from configs.experiment.run_folder import OpenedRun, RunFolder
from data_prep.config import PagesConfig
from data_prep.funnel.report import read_counts
from lm.checksums import log_damage
from lm.errors import MALFORMED, InputError
from lm.formats.hugging_face.names import family_of
from lm.formats.hugging_face.reading import KEPT
from lm.model.cost import count_parameters, flops_before
from lm.run_paths import RunPaths
from lm.storage import file_inside
from viewer.training_data import read_curves, read_json, read_splits

RECORD = "imported.json"
"""File in RunPaths.imported."""


@dataclass(frozen=True)
class Kept:
    """What an imported run keeps of the original model; empty for a run that was trained from scratch."""

    origin: str = ""
    """Name of the source, for people."""
    dtypes: dict[str, str] = field(default_factory=dict)
    """{name of a tensor in the source: its dtype there}."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The tokenizer's original files, if the run still has that tokenizer."""


def kept_of(run: OpenedRun) -> Kept:
    """Read what an imported run keeps of the original model. Raises InputError if it is damaged."""
    folder = run.folder.imported
    if not (folder / RECORD).is_file():
        return Kept()
    try:
        record = json.loads((folder / RECORD).read_bytes())
        same = record["tokenizer"] == run.tokenizer.fingerprint
        names = [name for name in KEPT if same and (folder / name).is_file()]
        files = {name: file_inside(folder, name).read_bytes() for name in names}
        return Kept(record["origin"], dict(record["dtypes"]), files)
    except (OSError, *MALFORMED) as error:
        raise InputError(f"{folder / RECORD} is damaged: {type(error).__name__}: {error}. Import it again.") from error


INPUTS = 'inputs = tokenizer("The history of", return_tensors="pt", return_token_type_ids=False)'
CHAT_INPUTS = """\
inputs = tokenizer.apply_chat_template([{"role": "user", "content": "What is fog?"}], add_generation_prompt=True,
                                       return_tensors="pt", return_dict=True)"""
CURVE_ROWS = 16
"""Maximum rows of the table of losses."""


def model_card(run: OpenedRun) -> str:
    """Return README.md of an exported model: YAML front matter and Markdown. Omits what the run folder lacks, and
    figures from damaged logs, after printing which logs are damaged."""
    damaged = log_damage(run.folder.root, (RunPaths.metrics, RunPaths.evaluation))
    for one in damaged:
        print(f"export: {one} README.md has no losses and no evaluation.", flush=True)
    figures = [] if damaged else [curve(run), evaluation(run)]
    parts = [head(run), about(run), how_to_load(run), data(run), recipe(run), *figures, limits(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def head(run: OpenedRun) -> str:
    languages = language_lines(run.experiment)
    lines = ["library_name: transformers", "pipeline_tag: text-generation", "tags:", "- gristmill"]
    lines.append("- conversational" if run.experiment.is_assistant else "- base-model")
    return "\n".join(["---", *lines, *([] if kept_of(run).origin else languages), "---"])


def language_lines(experiment: Experiment) -> list[str]:
    """YAML lines with the codes of the languages that the run kept, such as "- deu"; [] if it kept all."""
    codes = [one.partition("_")[0] for one in experiment.documents.language.languages]  # "deu" of "deu_Latn"
    languages = [one for one in dict.fromkeys(codes) if re.fullmatch("[a-z]{2,3}", one)]
    return ["language:", *(f"- {one}" for one in languages)] if languages else []


def about(run: OpenedRun) -> str:
    model, origin = run.config, kept_of(run).origin
    family = {"gpt2": "GPT-2's", "llama": "Llama's", "gristmill": "its own"}[family_of(model)]
    made = f"It was imported from {origin}, and trained further for {run.step:,} steps." if run.step else (
        f"It was imported from {origin}, and not trained further.")  # fmt: skip
    made = made if origin else f"It was trained from random parameters for {run.step:,} steps."
    kind = "base language model"
    if run.experiment.is_assistant:
        kind = "language model"
        made = f"It was finetuned on conversations for {run.step:,} steps, or reinforced after that."
    values = [(field.name, getattr(model, field.name)) for field in dataclasses.fields(model)]
    shown = [(name, value) for name, value in values if value not in (None, False, 0, ())]
    return "\n".join([
        f"# {run.name}", "",
        f"A {kind} of {count_parameters(model):,} parameters; its architecture is {family}. {made}",
        "", *table(("field", "value"), [(f"`{name}`", str(value)) for name, value in shown]),
    ])  # fmt: skip


def how_to_load(run: OpenedRun) -> str:
    own = family_of(run.config) == "gristmill"
    trust = ", trust_remote_code=True" if own else ""
    note = (
        "`trust_remote_code=True` runs `modeling_gristmill.py` of this folder, 300 lines that you should read "
        "first.\n\n"
        if own
        else ""
    )
    return (
        "## How to load it\n\n"
        f"{note}```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("."{trust})\n'
        f'tokenizer = AutoTokenizer.from_pretrained("."{trust})\n'
        f"{CHAT_INPUTS if run.experiment.is_assistant else INPUTS}\n"
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))\n```"
    )


def data(run: OpenedRun) -> str:
    """Markdown section on the text: sources, kept and dropped documents, training tokens; "" if nothing is known."""
    parts = (pages(run.folder, run.experiment), funnel_lines(run.folder, run.experiment), shard_lines(run))
    lines = list(itertools.chain(*parts))
    return "\n".join(["## Data", "", *lines]) if lines else ""


def pages(folder: RunFolder, experiment: Experiment) -> Iterator[str]:
    """Yield Markdown lines on where the web pages come from. A finetuned run has the config of its base, and no pages
    of its own; that of an imported base names no source."""
    config = experiment.pages
    if not folder.marker("pages").is_file():
        if not experiment.is_assistant or config == PagesConfig():
            return
        yield "The conversations are the user's. The model that was finetuned on them has read other texts before:\n"
    yield f"The pages come from the source `{config.source}`."
    if config.source == "packages":
        rows = [(f"{one.file.project} {one.file.version}", one.credit, one.licence) for one in config.packages]
        yield from ("", *table(("package", "what", "license"), rows), "")
    if config.source == "common_crawl":
        crawl = config.common_crawl
        what = "pages chosen by the index" if crawl.index.enabled else f"{crawl.files:,} files ({crawl.kind})"
        yield f"They are {what} of the crawl {crawl.crawl} of Common Crawl."


def funnel_lines(folder: RunFolder, experiment: Experiment) -> Iterator[str]:
    """Yield Markdown lines with the numbers of kept and dropped documents, and a table of the filter rules."""
    if not folder.funnel.is_file():
        return
    written = read_counts(folder.funnel)
    counts = written.counts
    kept, dropped = counts["kept"][0], counts["rows"] - counts["kept"][0]
    yield f"\nOf {counts['rows']:,} pages {kept:,} documents were kept and {dropped:,} dropped."
    yield f"The steps were, in order: {', '.join(experiment.documents.steps) or 'none'}."
    rules = [(one.stage, one.reason, one.signal, one.drops, f"{one.value:g}") for one in written.thresholds]
    if rules:
        yield from ("", *table(("step", "reason", "value", "dropped", "limit"), rules))


def shard_lines(run: OpenedRun) -> Iterator[str]:
    if not (run.folder.tokens / "manifest.json").is_file():
        return
    found = read_splits(run.folder.tokens / "manifest.json")
    figures = [
        (name, *(f"{found[f'{split}_{unit}']:,}" for unit in ("documents", "tokens", "bytes")))
        for name, split in (("training", "train"), ("held out", "validation"))
    ]
    yield from ("", *table(("split", "documents", "tokens", "bytes of text"), figures))
    yield f"\nA token has {found['bytes_per_token']:.2f} bytes on average."


def recipe(run: OpenedRun) -> str:
    """Markdown section on the training settings; "" for step 0."""
    if run.step == 0:
        return ""
    train, optimizer = run.experiment.train, run.experiment.train.optimizer
    stages = train.stages(run.config.context_length)
    batches = [(f"from step {one.first_step:,} on", one.describe()) for one in stages.between(0, run.step)]
    rows = [
        ("steps", f"{run.step:,} of {train.steps:,}"),
        *(batches if len(batches) > 1 else [("tokens a step", f"{stages.at(0).tokens:,}")]),
        ("tokens in all", f"{stages.tokens_before(run.step):,}"),
        ("arithmetic", f"{flops_before(run.config, stages)(run.step):.3g} FLOP"),
        ("optimizer", "Muon for the linear maps, AdamW for the rest" if optimizer.muon else "AdamW"),
        ("learning rate", f"{optimizer.learning_rate:g} to {optimizer.final_learning_rate:g}, {optimizer.schedule}"),
        ("warm-up", f"{optimizer.warmup_steps:,} steps"), ("weight decay", f"{optimizer.weight_decay:g}"),
        ("gradients clipped at", f"{optimizer.clip_norm:g}"),
        ("parameters, products", f"{run.config.parameter_dtype}, {run.config.compute_dtype}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.about.get("versions", {}).items())),
    ]  # fmt: skip
    return "\n".join(["## Training", "", *table(("", ""), rows)])


def curve(run: OpenedRun) -> str:
    """Markdown table of the validation losses up to this checkpoint, at most CURVE_ROWS rows; "" if there are none."""
    lines = [line for line in read_curves(run.folder.metrics).validation if line["step"] <= run.step]
    if not lines:
        return ""
    every = -(-len(lines) // CURVE_ROWS)
    chosen = lines[::-1][::every][::-1]
    rows = [
        (
            f"{one['step']:,}",
            f"{one['validation_loss']:.4f}",
            f"{one.get('validation_bits_per_byte', float('nan')):.4f}",
        )
        for one in chosen
    ]
    names = ("step", "held-out loss (nats per token)", "bits per byte")
    return "\n".join(["### Losses during training", "", *table(names, rows)])


def evaluation(run: OpenedRun) -> str:
    """Markdown section with the results in evaluation.json; "" unless this is the checkpoint that they belong to."""
    path = run.folder.evaluation
    if not path.is_file() or run.step != run.experiment.train.steps:
        return ""
    found = read_json(path, "launch.evaluate")
    bits = {
        name.removesuffix("_bits_per_byte"): value for name, value in found.items() if name.endswith("bits_per_byte")
    }
    rows = [("this model" if name == "validation" else name, f"{value:.3f}") for name, value in bits.items()]
    others = [
        (name, f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
        for name, value in found.items()
        if isinstance(value, int | float) and not name.endswith("bits_per_byte")
    ]
    return "\n".join([
        "## Evaluation", "", "The model as a compressor of held-out documents, compared with others:", "",
        *table(("", "bits per byte"), rows), "", *table(("figure", "value"), others),
    ])  # fmt: skip


def limits(run: OpenedRun) -> str:
    continues = (
        "It continues text, and was not trained to follow instructions, to answer, or to refuse: a question may be "
        "continued by more questions."
    )
    answers = "It answers as in the conversations that it was finetuned on. Tools that it calls are not in this folder."
    return (
        f"## Limits\n\n{answers if run.experiment.is_assistant else continues} "
        "Its output may be false, may repeat the biases of its data, "
        f"and may repeat training text. Its context is {run.config.context_length:,} tokens. `generation_config.json` "
        "has no sampling settings: choose your own."
    )


def table(names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return the lines of a Markdown table."""
    escaped = lambda row: "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
    return [escaped(names), "|" + "---|" * len(names), *map(escaped, rows)]

"""A minimal use of what each recipe of docs/contracts.md adds.

tests/test_contracts.py runs this in a copy of the tree in which it has carried out the recipes:
    python -m tests.contract_uses optimizer norm
"""

import dataclasses
import functools
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

SENTENCE = "The miller carried two sacks of grain to the village and the baker paid him on the same day. "


def quality_filter() -> None:
    """It drops under its reason, and the other recipes stay as they were."""
    from configs.recipes import datatrove_0_10, fineweb_2, fineweb_2024, gristmill

    lists = gristmill.URL_FILTER_WITHOUT_LISTS
    assert "capitals" in gristmill.documents("x", lists).steps
    for other in (datatrove_0_10, fineweb_2024, fineweb_2):
        config = other.documents("x", lists)
        assert "capitals" not in config.sections and "gopher_quality" in config.steps
    words = (SENTENCE * 4).split()
    loud = " ".join(word.upper() if place % 2 else word for place, word in enumerate(words))
    config = dataclasses.replace(gristmill.documents("x", lists), steps=("capitals",))
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pages.jsonl"
        table.write_text("".join(json.dumps({"text": text}) + "\n" for text in (SENTENCE * 4, loud)))
        assert dropped(table, config) == {"capitals/too_many_capital_words": 1}


def dropped(table: Path, config: Any) -> dict[str, int]:
    """{stage/reason: documents} of the texts of a table."""
    from data_prep.measure.run import extract_texts
    from data_prep.select.run import prepare_documents
    from data_prep.sources.manifest import InputFile
    from lm.run_paths import RunPaths

    paths = RunPaths(table.parent / "run")
    extract_texts([InputFile(table, table.name, "table", table.stat().st_size)], config, paths.texts.parent)
    prepare_documents(paths.texts, config, table.parent / "run")
    counts = json.loads(paths.funnel.read_text(encoding="utf-8"))["counts"]["reasons"]
    return {reason: documents for reason, (documents, _) in counts.items()}


def table_format() -> None:
    """It is found in a folder, recognized and read."""
    from data_prep.sources.local import own_files
    from data_prep.sources.tables import read_table

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pages.csv").write_text('id,text,by\n1,"one, and\nmore",a\n2,two,b\n', encoding="utf-8")
        (file,) = own_files((), (folder,), "text", ("by",))
        found = list(read_table(file.path, keep_columns=file.keep_columns))
        assert [(one.id, one.text) for one in found] == [("1", "one, and\nmore"), ("2", "two")]
        assert [value for one in found for _, _, value in one.kept] == ["a", "b"]


def extractor() -> None:
    """It keeps the menu that ours leaves out."""
    from configs.recipes.gristmill import EXTRACT
    from data_prep.documents import WebPage
    from data_prep.extract import extract_text

    body = f"<html><body><nav><a href=/>Home</a></nav><article><p>{SENTENCE * 4}</p></article></body></html>"
    page = WebPage("http://a.example/", "<1>", "", "text/html; charset=utf-8", body.encode(), "x")
    config = dataclasses.replace(EXTRACT, engine="all_text", max_depth=255, max_elements=10_000)
    text, reason = extract_text(page, config)
    assert reason is None and "Home" in text and SENTENCE.strip() in text
    assert "Home" not in extract_text(page, EXTRACT)[0]


def url_list() -> None:
    """It bans as well as the lists in packages, and is in the stage's key."""
    from configs.recipes.gristmill import URL_FILTER
    from data_prep.url_filter.filter import UrlFilter
    from data_prep.url_filter.lists import load_lists, sources_of

    with tempfile.TemporaryDirectory() as folder:
        lists = Path(folder) / "mine"
        lists.mkdir()
        (lists / "domains").write_text("bad.example\n")
        config = dataclasses.replace(URL_FILTER, folders=(str(lists),))
        assert [line.partition("  ")[2] for line in sources_of(config)] == [
            "datatrove-0.10.1-py3-none-any.whl:datatrove/assets", "mine/domains",
        ]  # fmt: skip
        alone = dataclasses.replace(config, packaged_lists=False)  # the package would be downloaded
        found = UrlFilter(alone, load_lists(alone))
        assert found.reject_reason("http://www.bad.example/") == "banned_domain"


def one_step(model: dict[str, Any], optimizer: dict[str, Any]) -> None:
    """A model of the demo's config, made tiny and changed so, is planned, inspected and trained for a step; exports say
    which of the changed fields they cannot express."""
    import jax
    import numpy as np

    from lm.errors import UsageError
    from lm.formats.hugging_face import write_hugging_face
    from lm.formats.standalone.writing import write_standalone
    from lm.inspect.architecture import architecture
    from lm.model.param_names import named_leaves
    from lm.parallel import one_device_mesh
    from lm.planning.flops import flops_per_token
    from lm.planning.memory import count_parameters
    from lm.tokenizer.characters import CharacterTokenizer
    from lm.training.memory import state_bytes
    from lm.training.optimizer import make_optimizer
    from lm.training.state import abstract_state, initializer
    from lm.training.step import compile_step
    from tests.corpus import tiny_experiment
    from tests.lm.training.test_step import batch_of

    tiny = tiny_experiment()
    config = dataclasses.replace(tiny.model, **model)
    rule = dataclasses.replace(tiny.train.optimizer, **optimizer)
    train = dataclasses.replace(tiny.train, optimizer=rule)
    made = make_optimizer(rule, train.steps)
    mesh = one_device_mesh(config)
    state = initializer(config, made, 0, mesh)()
    bytes_of = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    assert state_bytes(config, rule) == (bytes_of(state.model), bytes_of(state.optimizer_state))
    assert architecture(config).parameters == count_parameters(config) and flops_per_token(config) > 0
    step = compile_step(made, abstract_state(config, made, mesh), mesh, train)
    before = {name: np.array(leaf) for name, leaf in named_leaves(state.model).items()}
    state, metrics = step(state, batch_of(config))
    assert np.isfinite(float(metrics["loss"]))
    after = named_leaves(state.model)
    assert all(not np.array_equal(after[name], value) for name, value in before.items() if name.endswith("weight"))
    for write in (write_hugging_face, functools.partial(write_standalone, title="x")):
        with tempfile.TemporaryDirectory() as folder:
            out, tokenizer = Path(folder) / "out", CharacterTokenizer("\nabc")
            try:
                write(out, config, before, tokenizer)
                assert not model
            except UsageError as refused:
                assert model and all(f"model.{name} = {value}" in str(refused) for name, value in model.items())


def evaluator() -> None:
    """It is made by its name, and gives its figure."""
    import jax

    from lm.evaluation.evaluator import EvaluatorConfig
    from lm.evaluation.evaluators import make_evaluators
    from lm.model.transformer import Transformer
    from lm.parallel import one_device_mesh
    from lm.tokenizer.characters import CharacterTokenizer
    from tests.lm.model_configs import LLAMA

    asked = EvaluatorConfig(LLAMA, CharacterTokenizer("\nabc"), Path("tokens"), batch_size=1, stride=1)
    made = make_evaluators(("parameter_norm",), asked, "train.evaluators")["parameter_norm"]
    figures = made.run(Transformer(LLAMA, jax.random.key(0)), one_device_mesh(LLAMA))
    assert figures.keys() == {"parameter_norm"} and figures["parameter_norm"] > 1


USES: dict[str, Callable[[], None]] = {
    "quality filter": quality_filter,
    "format of tables": table_format,
    "extractor": extractor,
    "URL list": url_list,
    "optimizer": lambda: one_step({}, {"name": "adan"}),
    "schedule": lambda: one_step({}, {"schedule": "inverse_sqrt"}),
    "activation": lambda: one_step({"mlp": "geglu"}, {}),
    "norm": lambda: one_step({"norm": "unit"}, {}),
    "evaluator": evaluator,
}
"""{what a recipe adds: its use}."""

if __name__ == "__main__":
    for added in sys.argv[1:]:
        USES[added]()
        print(f"{added}: used", flush=True)

"""Rules of the code base: allowed imports, and configs that are valid and documented."""

import ast
import dataclasses
import functools
import graphlib
import gzip
import io
import itertools
import re
import subprocess
import sys
import tokenize
import tomllib
import typing
from pathlib import Path

import jax
import pytest

from configs.experiment import load_config
from configs.experiment.definition import SECTIONS, section_class
from lm.config.tokenizer import SPECIAL_TOKENS
from lm.model.transformer import Transformer
from tests.conftest import pytest_make_parametrize_id
from tests.run_files import REPOSITORY

ROOMS = ("configs", "data_prep", "launch", "lm", "viewer")
ALLOWED = {
    "lm": ("lm",),
    "data_prep": (
        "data_prep", "lm.tokenizer", "lm.chat", "lm.data.records", "lm.storage", "lm.errors", "lm.fields",
        "lm.trusted_code",
    ),
    "configs": ("configs", "data_prep", "lm"),
    "viewer": ("viewer", "configs", "data_prep", "lm"),
    "launch": ("launch", "viewer", "configs", "data_prep", "lm"),
}  # fmt: skip
FILES = sorted(path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))
LAZY_IMPORT = re.compile(rf"({'|'.join(ROOMS)})(\.\w+)+:\w+")
"""A string that pkgutil.resolve_name imports later, such as "launch.train:STAGE"."""
NUMBER = re.compile(r"^(?!ClassVar|Callable).*\b(int|float|ndarray|Array)\b")
NO_CONFIGS = ("__init__", "layouts", "assistant", "finetune", "reinforce")
"""Also assistant, finetune and reinforce, configs for the experiment of another run."""
CONFIGS = sorted(path for path in (REPOSITORY / "configs").glob("*.py") if path.stem not in NO_CONFIGS)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and LAZY_IMPORT.fullmatch(str(node.value)):
            found.append(str(node.value).replace(":", "."))
    return found


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_imports_follow_the_arrows():
    for path in FILES:
        room = path.relative_to(REPOSITORY).parts[0]
        for name in imports(path):
            if name.split(".")[0] in (*ROOMS, "tests"):
                assert any(below(name, allowed) for allowed in ALLOWED[room]), f"{path} imports {name}"
            if room == "data_prep":
                assert not below(name, "jax") and not below(name, "flax"), f"{path} imports {name}"


@functools.cache
def modules() -> dict[str, Path]:
    """{dotted name: file} of all modules."""
    dotted = lambda path: ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    return {dotted(path): path for path in FILES}


@functools.cache
def imported_modules() -> dict[str, set[str]]:
    """{module: modules of ours that it imports, anywhere in its file}."""
    found = modules()

    def module_of(name: str) -> str:
        while name and name not in found:
            name = name.rpartition(".")[0]
        return name

    return {module: {module_of(name) for name in imports(path)} - {"", module} for module, path in found.items()}


def room_of(module: str) -> str:
    """The package of a module; for a module next to the packages, itself."""
    parts = module.split(".")
    inside = len(parts) > 2 or modules()[module].name == "__init__.py"
    return ".".join(parts[:2]) if inside else module


def test_no_module_and_no_package_is_in_an_import_cycle():
    graph = imported_modules()
    assert "launch.train" in graph["launch.sample"]  # by name: "launch.train:STAGE"
    rooms: dict[str, set[str]] = {}
    for module, used in graph.items():
        rooms.setdefault(room_of(module), set()).update({room_of(one) for one in used} - {room_of(module)})
    for one in (graph, rooms):
        list(graphlib.TopologicalSorter(one).static_order())  # raises CycleError, which names the cycle


LOW = (
    "lm.errors", "lm.fields", "lm.run_paths", "lm.storage", "lm.terminal", "lm.own_process", "lm.trusted_code",
    "lm.address_space", "lm.bounded",
)  # fmt: skip
"""Modules of lm below all its packages."""
MAY_IMPORT = {
    "lm.config": (),
    "lm.tokenizer": ("lm.config",),
    "lm.data": ("lm.config",),
    "lm.model": ("lm.config", "lm.devices", "lm.parallel"),
    "lm.metrics": ("lm.config",),
    "lm.resilience": (),
    "lm.checkpoints": ("lm.config", "lm.model", "lm.parallel", "lm.resilience"),
    "lm.evaluation": ("lm.config", "lm.data", "lm.inference", "lm.model", "lm.parallel", "lm.tokenizer"),
    "lm.inference": ("lm.config", "lm.model", "lm.parallel", "lm.tokenizer"),
    "lm.inspect": ("lm.config", "lm.model", "lm.parallel", "lm.tokenizer"),
    "lm.chat": ("lm.config", "lm.corpus_index", "lm.evaluation", "lm.inference", "lm.tokenizer"),
    "lm.serving": ("lm.chat", "lm.config", "lm.inference", "lm.tokenizer"),
    "lm.corpus_index": ("lm.config", "lm.data", "lm.tokenizer"),
    "lm.formats": ("lm.checkpoints", "lm.config", "lm.model", "lm.tokenizer"),
    "lm.scaling": ("lm.config", "lm.data", "lm.model"),
}
"""Allowed imports inside lm, by package. lm.training may import all packages, and lm.planner lm.training too."""


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_the_packages_of_lm_import_along_the_arrows(room):
    for module, used in imported_modules().items():
        if room_of(module) == room:
            outside = {one for one in used if not any(below(one, name) for name in (room, *LOW, *MAY_IMPORT[room]))}
            assert not outside, f"{module} imports {', '.join(sorted(outside))}"


CORE = (
    "lm.config", "lm.model", "lm.parallel", "lm.data", "lm.training", "lm.checkpoints", "lm.tokenizer", "lm.inference",
    "lm.evaluation", "data_prep.warc", "data_prep.extract", "data_prep.quality", "data_prep.dedup", "data_prep.select",
    "data_prep.shards", "data_prep.engine",
)  # fmt: skip
BESIDE = (
    "lm.scaling", "lm.planner", "lm.corpus_index", "lm.formats", "lm.serving", "lm.chat", "lm.reinforcement",
    "lm.inspect", "data_prep.by_language", "data_prep.dedup_index", "data_prep.decontamination", "viewer", "launch",
)  # fmt: skip
"""Rooms that a reader of the core needs not know. A config that asks for one names it, or a command passes it."""


def test_the_core_imports_no_room_beside_it():
    for module, used in imported_modules().items():
        if any(below(module, room) for room in CORE):
            beside = {one for one in used if any(below(one, room) for room in BESIDE)}
            assert not beside, f"{module} imports {', '.join(sorted(beside))}"


def test_every_package_and_every_file_has_a_docstring():
    for folder in sorted({path.parent for path in FILES}):
        assert (folder / "__init__.py").is_file(), f"{folder} has no __init__.py that says what it is for"
    for path in FILES:
        assert ast.get_docstring(tree_of(path)), f"{path} has no docstring"


def test_shapes_are_checked_in_every_annotation():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    *checked, _ = settings["tool"]["pytest"]["ini_options"]["addopts"].partition("--jaxtyping-packages=")[2].split(",")
    for path in FILES:
        if any(below(name, "jaxtyping") for name in imports(path)):
            module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
            assert any(below(module, one) for one in checked), f"pyproject.toml: jaxtyping-packages lacks {module}"


@pytest.mark.parametrize(("package", "module"), [("apache_beam", "beam.py"), ("ray", "ray_tasks.py")])
def test_an_engine_is_only_imported_by_its_executor(package, module):
    users = {str(path.relative_to(REPOSITORY)) for path in FILES if any(below(n, package) for n in imports(path))}
    assert users == {f"data_prep/engine/{module}"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_builds_a_model_of_its_declared_shapes(path):
    experiment = load_config(path)
    config = dataclasses.replace(experiment.model, scan_layers=not experiment.model.attention_windows)  # one trace
    model = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
    tokens = jax.ShapeDtypeStruct((2, config.context_length), "int32")
    logits = jax.eval_shape(lambda model, tokens: model.logits(model.read(tokens, tokens)), model, tokens)
    assert logits.shape == (2, config.context_length, config.vocab_size)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_reserves_the_special_tokens_of_the_chat(path):
    """Except the demo, to which finetuning appends them."""
    tokenizer = load_config(path).tokenizer
    reserved = tokenizer.algorithm != "characters" and path.stem != "demo"
    assert tokenizer.special_tokens == (SPECIAL_TOKENS if reserved else ("<|endoftext|>",))


def config_classes() -> list[type]:
    found: list[type] = []
    experiment = load_config(CONFIGS[0])
    waiting: list[typing.Any] = [type(experiment), *map(section_class, SECTIONS)]
    waiting += map(type, experiment.documents.filters)
    while waiting:
        cls = waiting.pop()
        found.append(cls)
        for field in dataclasses.fields(cls):
            kinds = (field.type, *typing.get_args(field.type))  # a part that may be None is a part too
            waiting += [kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("cls", config_classes(), ids=lambda cls: cls.__name__)
def test_every_field_of_every_config_has_a_description(cls):
    assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("), f"{cls.__name__} has no docstring"
    if cls.__name__ == "Experiment":  # its fields are the sections, and each section has a docstring
        return
    module = Path(str(sys.modules[cls.__module__].__file__))
    tree = ast.parse(module.read_text())
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__]
    explained = {
        before.target.id
        for before, after in itertools.pairwise(body)
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }  # fmt: skip
    nested = {field.name for field in dataclasses.fields(cls) if dataclasses.is_dataclass(field.type)}
    missing = {field.name for field in dataclasses.fields(cls)} - explained - nested
    assert not missing, f"{cls.__name__}: no docstring under {', '.join(sorted(missing))}"


def bare_numbers(path: Path) -> list[str]:
    """Numeric and array fields of public dataclasses and NamedTuples that no docstring of the class names."""
    found, lines = [], path.read_text().splitlines()
    for cls in ast.walk(tree_of(path)):
        if not isinstance(cls, ast.ClassDef) or cls.name.startswith("_"):
            continue
        if not re.search("dataclass|NamedTuple", " ".join(map(ast.unparse, [*cls.decorator_list, *cls.bases]))):
            continue
        texts = [one for one in cls.body if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)]
        words = set(re.findall(r"\w+", " ".join(ast.unparse(one) for one in texts)))
        for field, after in itertools.pairwise([*cls.body, None]):
            if isinstance(field, ast.AnnAssign) and NUMBER.search(ast.unparse(field.annotation)):
                name, told = ast.unparse(field.target), re.search(r"# (?!noqa)", lines[field.lineno - 1])
                if not (name.startswith("_") or after in texts or name in words or told):
                    found.append(f"{path.relative_to(REPOSITORY)}:{field.lineno}: {cls.name}.{name}")
    return found


def test_every_number_in_a_class_of_values_has_its_meaning_or_unit():
    assert not [one for path in FILES for one in bare_numbers(path)]


def raised(body: typing.Sequence[ast.AST], caught: frozenset[str] = frozenset()) -> typing.Iterator[str]:
    """Yield what the statements raise themselves, without nested functions and what their own `try` catches."""
    for node in body:
        if isinstance(node, ast.Raise) and node.exc is not None:
            name = ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
            if name not in caught | {"AssertionError", "NotImplementedError"}:
                yield name
        elif isinstance(node, ast.Try):
            handled = " ".join(ast.unparse(one.type) for one in node.handlers if one.type)
            yield from raised(node.body, caught | set(re.findall(r"[\w.]+", handled)))
            yield from raised([*node.handlers, *node.orelse, *node.finalbody], caught)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from raised([*ast.iter_child_nodes(node)], caught)


def test_every_documented_function_that_raises_says_so():
    """Or its class says it, as "the methods raise ..."."""
    found = []
    for path, owner in ((file, one) for file in FILES for one in ast.walk(tree_of(file))):
        of_class = ast.get_docstring(owner) or "" if isinstance(owner, ast.ClassDef) else ""
        for node in ast.iter_child_nodes(owner):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                text, errors = ast.get_docstring(node) or "", set(raised(node.body))
                if (
                    text
                    and errors
                    and not re.search(r"\b[Rr]ais|[Ee]rror|refuse", text)
                    and "methods raise" not in of_class
                ):
                    found.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {node.name} raises {sorted(errors)}")
    assert not found


def test_every_relative_path_to_the_root_leads_to_the_repository():
    """Also in tests, benchmarks and chaos rows: a file that moves must not look for the tree elsewhere."""
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        for above in re.findall(
            r"^REPOSITORY = Path\(__file__\)\.parents\[(\d)\]", path.read_text("utf-8"), re.MULTILINE
        ):
            assert path.parents[int(above)] == REPOSITORY, f"{path}: REPOSITORY is {path.parents[int(above)]}"


UNSTABLE_NAME = re.compile(r" at 0x|/tmp/|[0-9a-f]{40}")


def test_the_name_of_a_test_is_the_same_in_every_process(request):
    """Otherwise pytest-xdist fails in `make test`, since its processes collected different tests."""
    for item in request.session.items:
        assert not UNSTABLE_NAME.search(item.name), f"{item.nodeid}: name this case by hand (id=...)"
    with pytest.raises(ValueError, match="by hand"):
        pytest_make_parametrize_id(gzip.compress(b"", mtime=0), "body")
    assert pytest_make_parametrize_id(b"\xff", "body") is None


def test_no_script_imports_jax_before_it_needs_it():
    """Importing JAX takes seconds: --help, a wrong option and the data stages must not wait for it."""
    scripts = sorted(path.stem for path in (REPOSITORY / "launch").glob("*.py") if path.stem != "__init__")
    program = f"import sys; {'; '.join(f'import launch.{name}' for name in scripts)}; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def factors(node: ast.expr) -> list[ast.expr]:
    """The factors of a product, in any order."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return factors(node.left) + factors(node.right)
    return [node]


def names_in(node: ast.expr) -> set[str]:
    return {
        one.attr if isinstance(one, ast.Attribute) else one.id
        for one in ast.walk(node)
        if isinstance(one, ast.Attribute | ast.Name)
    }


def test_steps_are_never_multiplied_by_the_batch_size():
    """Batches may grow (train.batch_schedule): lm.config.Stages.windows_before and tokens_before count the sequences
    and tokens of all steps before one."""
    for path, node in [(file, node) for file in FILES for node in ast.walk(tree_of(file))]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            steps, sizes = [], []
            for factor in factors(node):
                names = names_in(factor)
                steps += [name for name in names if re.fullmatch(r"((first|last|stop)_)?steps?", name)]
                sizes += [
                    name
                    for name in names
                    if re.search(r"batch_size|(tokens|windows|flops)_(per|a)_step|step_flops", name)
                ]
            assert not (steps and sizes), f"{path}, line {node.lineno}: {ast.unparse(node)}"


def test_messages_name_parts_of_pages_that_exist():
    """(docs/PAGE.md, PART): the page has these words."""
    texts = (node.value for path in FILES for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant))
    found = [
        one for text in texts if isinstance(text, str) for one in re.findall(r"\((docs/\w+\.md), ([^()]+)\)", text)
    ]
    assert len(found) >= 3
    for page, part in found:
        assert part in (REPOSITORY / page).read_text(), (page, part)


MOST_TOKENS = {"product": 456_600, "tests": 537_600}
"""Python tokens without comments and line structure; a string is one, also a docstring or an f-string. Lower them when
code leaves."""


def tokens_of(text: str) -> int:
    ignored = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = depth = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        tokens += not depth and token.type not in ignored
        depth += (token.type == tokenize.FSTRING_START) - (token.type == tokenize.FSTRING_END)
    return tokens


def test_the_tree_has_no_more_tokens_than_it_may_have():
    assert tokens_of('print(f"{x + 1:>{width}} of {f(y)}", "a")  # 2\n') == 6
    tests = sorted((REPOSITORY / "tests").rglob("*.py"))
    sizes = {
        kind: sum(tokens_of(path.read_text()) for path in files)
        for kind, files in {"product": FILES, "tests": tests}.items()
    }
    assert all(size <= MOST_TOKENS[kind] for kind, size in sizes.items()), (sizes, MOST_TOKENS)


def test_readme_and_docs_have_at_most_30_000_words():
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    assert sum(len(page.read_text().split()) for page in pages) <= 30_000

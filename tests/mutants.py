"""Do the tests find wrong code? Seeded mutants of the product, each tried with the tests that reach its line.

    python -m tests.mutants record [PATH ...] [-m EXPRESSION]  # which test runs which lines; parts add up
    python -m tests.mutants draw [ROOM ...] [--count 60] [--seed 41] > LIST
    python -m tests.mutants run LIST  # a JSON line for each mutant

`record` and `run` read HEAD, in a temporary worktree. A list can be run on another commit: a mutant is found again by
the text of its lines and the name of its function. If the tests that reach the line pass, the other tests of their
files run too: cached functions and shared fixtures run in the first test only. A line outside of functions runs when
its file is imported: it is tried with all tests that run any line of the file.
"""

import argparse
import ast
import hashlib
import inspect
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PRODUCT = ("configs", "data_prep", "launch", "lm", "viewer")
CORE_SECONDS = 600
LOGS = ("print", "log", "info", "warn", "warning", "debug", "error", "exception")
OPPOSITE = dict(
    re.findall(
        r"(\w+)>(\w+)",
        "Lt>LtE LtE>Lt Gt>GtE GtE>Gt Eq>NotEq NotEq>Eq Is>IsNot IsNot>Is In>NotIn NotIn>In And>Or Or>And "
        "Add>Sub Sub>Add Mult>Add Div>Mult FloorDiv>Mult Mod>FloorDiv Pow>Mult",
    )
)


def changes(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the kind and the new source of each mutant of `node`."""
    opposite = lambda operator: getattr(ast, OPPOSITE[type(operator).__name__])()
    match node:
        case ast.Compare(left, [operator, *operators], [right, *others]):
            yield "comparison", ast.unparse(ast.Compare(left, [opposite(operator), *operators], [right, *others]))
            if isinstance(right, ast.Constant) and isinstance(right.value, str):
                changed = [ast.Constant(right.value + "x"), *others]
                yield "string", ast.unparse(ast.Compare(left, [operator, *operators], changed))
        case ast.BinOp(left, operator, right) if type(operator).__name__ in OPPOSITE:
            if not {"'", '"'} & set(ast.unparse(node)):  # of texts, every change fails
                yield "arithmetic", ast.unparse(ast.BinOp(left, opposite(operator), right))
        case ast.BoolOp(operator, values):
            yield "boolean", ast.unparse(ast.BoolOp(opposite(operator), values))
        case ast.UnaryOp(ast.Not(), operand):
            yield "not", ast.unparse(operand)
        case ast.Constant(bool(value)):
            yield "truth", str(not value)
        case ast.Constant(int(value) | float(value)):
            yield "number", str(value + 1)
        case ast.Attribute(ast.Name("re" | "regex"), name) if name.isupper():
            yield "flag", "0"
        case ast.Expr(ast.Call()) | ast.If(body=[ast.Raise()], orelse=[]):
            yield "statement", "pass"
        case ast.Break() | ast.Continue():
            yield "loop", "continue" if isinstance(node, ast.Break) else "break"
        case ast.Call(function, [first, second, *others], keywords) if ast.dump(first) != ast.dump(second):
            if not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
                yield "arguments", ast.unparse(ast.Call(function, [second, first, *others], keywords))


def places(node: ast.AST, function: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Yield the nodes that may change, with the function that runs each: `Block.__call__()`, or a class, or ""."""
    match node:
        case ast.Raise() | ast.JoinedStr() | ast.If(ast.Name("TYPE_CHECKING")):
            return
        case ast.Expr(ast.Call(ast.Name(name) | ast.Attribute(attr=name))) if name in LOGS:
            return
    yield node, function
    for field, value in ast.iter_fields(node):
        within = function
        if field == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            within += f".{node.name}" + "()" * (not isinstance(node, ast.ClassDef))
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and field not in ("annotation", "returns", "type_params"):
                yield from places(child, within.lstrip("."))


def mutants_of(root: Path, file: str) -> Iterator[dict]:
    """Yield the mutants of a file, each a change of lines that occur once in it."""
    source = (root / file).read_bytes()
    lines = source.splitlines(keepends=True)
    for node, function in places(ast.parse(source)):
        for kind, change in changes(node):
            assert isinstance(node, ast.expr | ast.stmt) and node.end_lineno and node.end_col_offset
            old = b"".join(lines[node.lineno - 1 : node.end_lineno])
            end = len(old) - len(lines[node.end_lineno - 1]) + node.end_col_offset
            change = f"({change})" if isinstance(node, ast.expr) else change
            new = old[: node.col_offset] + change.encode() + old[end:]
            if source.count(old) == 1:
                yield {
                    "file": file, "line": node.lineno, "function": function, "kind": kind,
                    "change": f"{old[node.col_offset : end].decode()} -> {change}",
                    "old": old.decode(), "new": new.decode(),
                }  # fmt: skip


def draw(root: Path, rooms: list[str], count: int, seed: int) -> list[dict]:
    """Draw the rooms in turn, in a room a file by its size, in a file a kind of change, then one of the kind."""
    sizes: dict[str, dict[str, int]] = {}
    for path in sorted(path for top in PRODUCT for path in (root / top).rglob("*.py")):
        room = "/".join(path.relative_to(root).parent.parts[:2])
        if not rooms or room in rooms:
            sizes.setdefault(room, {})[path.relative_to(root).as_posix()] = path.stat().st_size
    luck, drawn = {room: random.Random(f"{seed} {room}") for room in sizes}, []
    order = random.Random(seed).sample([*sizes], len(sizes))
    for turn in range(20 * count):  # a room may have nothing to change
        room = order[turn % len(order)]
        file = luck[room].choices([*sizes[room]], [*sizes[room].values()])[0]
        kinds: dict[str, list[dict]] = {}
        for mutant in mutants_of(root, file):
            kinds.setdefault(mutant["kind"], []).append(mutant)
        if kinds and len(drawn) < count:
            mutant = luck[room].choice(kinds[luck[room].choice(sorted(kinds))])
            drawn += [mutant] * (mutant not in drawn)
    return drawn


def find_again(root: Path, mutant: dict) -> dict | None:
    """The same mutant in the tree at `root`, also if its function has moved to another file."""
    files = [path.relative_to(root).as_posix() for top in PRODUCT for path in sorted((root / top).rglob("*.py"))]
    for file in sorted(files, key=lambda file: file != mutant["file"]):
        if mutant["old"] in (root / file).read_text(encoding="utf-8"):
            for found in mutants_of(root, file):
                if all(found[name] == mutant[name] for name in ("function", "old", "new")):
                    return found
    return None


def record_lines() -> None:
    """Append the first run of each line of ours, `file:line`, to the file that GRISTMILL_LINES names at that time."""
    import os
    import sys

    root = os.environ["GRISTMILL_ROOT"]

    def append(code, line):
        if code.co_filename.startswith(root) and (file := os.environ.get("GRISTMILL_LINES")):
            output = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(output, f"{code.co_filename[len(root) :]}:{line}\n".encode())
            os.close(output)
        return sys.monitoring.DISABLE

    sys.monitoring.use_tool_id(4, "mutants")
    sys.monitoring.register_callback(4, sys.monitoring.events.LINE, append)
    sys.monitoring.set_events(4, sys.monitoring.events.LINE)


TESTS: list[dict] = []
"""The tests that this process ran, as a plugin of pytest."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "GRISTMILL_TESTS" in os.environ:
        tests = Path(os.environ["GRISTMILL_TESTS"]).read_text(encoding="utf-8").splitlines()
        place = {test: number for number, test in enumerate(tests)}
        items[:] = sorted((item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    start = sum(os.times()[:4])
    TESTS.append({"test": item.nodeid, "slow": item.get_closest_marker("slow") is not None, "failed": False})
    if "GRISTMILL_ROOT" in os.environ:
        os.environ["GRISTMILL_LINES"] = f"{os.environ['GRISTMILL_RESULT']}-{len(TESTS)}"
        sys.monitoring.restart_events()
    done = yield
    TESTS[-1]["seconds"] = round(sum(os.times()[:4]) - start, 2)
    return done


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    TESTS[-1]["failed"] |= report.failed


def pytest_sessionfinish() -> None:
    for number, test in enumerate(TESTS, 1):
        lines, test["lines"] = Path(f"{os.environ['GRISTMILL_RESULT']}-{number}"), {}
        for place in sorted(set(lines.read_text(encoding="utf-8").splitlines())) if lines.exists() else []:
            file, _, line = place.rpartition(":")
            if file.startswith(PRODUCT):
                test["lines"].setdefault(file, []).append(int(line))
    Path(os.environ["GRISTMILL_RESULT"]).write_text(json.dumps(TESTS), encoding="utf-8")


@contextmanager
def worktree() -> Generator[Path]:
    """A temporary worktree of HEAD that shares the environment and the compiled programs of this one."""
    with tempfile.TemporaryDirectory() as folder:
        root, git = Path(folder, "tree"), ["git", "-C", str(REPOSITORY), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", root, "HEAD"], check=True)
        try:
            for name in (".venv", ".tools", ".pytest_cache"):
                if (REPOSITORY / name).exists():
                    (root / name).symlink_to(REPOSITORY / name)
            yield root
        finally:
            subprocess.run([*git, "remove", "--force", root], check=True)


def run_tests(root: Path, *words: str, limit: int | None = None, **environment: str) -> tuple[int | None, list[dict]]:
    """Run pytest in a worktree, for `limit` seconds of CPU time in each process and ten times as many in all. Return
    its exit code, None at a limit, and the tests that ran."""
    result = root.parent / "result"
    result.unlink(missing_ok=True)
    if "GRISTMILL_ROOT" in environment:
        source = inspect.getsource(record_lines) + "record_lines()\n"
        (root.parent / "sitecustomize.py").write_text(source, encoding="utf-8")
    paths = os.pathsep.join(map(str, (root.parent, root)))
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "tests.mutants", f"--basetemp={root.parent}/base", *words], cwd=root,
        env=os.environ | {"PYTHONPATH": paths, "GRISTMILL_RESULT": str(result)} | environment,
        stdout=subprocess.DEVNULL if limit else None, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    if limit:
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (limit, limit))
    try:
        code = process.wait(10 * limit if limit else None)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return None if code in (-signal.SIGXCPU, -signal.SIGKILL) else code, json.loads(
        result.read_text()
    ) if result.exists() else []


def recording() -> Path:
    """The recording of this product: of other sources, the lines would be others."""
    trees = subprocess.check_output(["git", "-C", REPOSITORY, "rev-parse", *(f"HEAD:{top}" for top in PRODUCT)])
    return REPOSITORY / f".pytest_cache/mutants/{hashlib.sha256(trees).hexdigest()[:16]}.json"


def record(words: list[str]) -> None:
    with worktree() as root:
        _, tests = run_tests(root, *words, GRISTMILL_ROOT=f"{root}/")
    path = recording()
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept |= {test["test"]: test for test in tests if not test["failed"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept), encoding="utf-8")


def try_mutant(root: Path, mutant: dict, recorded: dict[str, dict], slow: bool) -> str:
    """Run the fast or the slow tests on a mutant, in its tree: the quickest that reach its line first."""
    last = mutant["line"] + mutant["old"].count("\n")
    tests = sorted((test for test in recorded.values() if test["slow"] == slow), key=lambda test: test["seconds"])
    lines = {test["test"]: test["lines"].get(mutant["file"], []) for test in tests}
    inside = "()" in mutant["function"]
    reaching = [name for name in lines if any(mutant["line"] <= line < last or not inside for line in lines[name])]
    files = {name.partition("::")[0] for name in reaching}
    others = [name for name in lines if name.partition("::")[0] in files and name not in reaching]
    chosen, seconds = [], 0.0
    for name in reaching + others:
        if seconds + recorded[name]["seconds"] <= CORE_SECONDS:
            seconds += recorded[name]["seconds"]
            chosen.append(name)
    if not chosen:
        return "no test reaches the line"
    (root.parent / "tests").write_text("\n".join(chosen), encoding="utf-8")
    limit = min(60 + int(10 * seconds), CORE_SECONDS)  # of a loop without end
    code, ran = run_tests(root, "-x", *sorted(files), limit=limit, GRISTMILL_TESTS=str(root.parent / "tests"))
    if failed := [test["test"] for test in ran if test["failed"]]:
        return f"found by {failed[0]}"
    if code:
        return f"found by an exit of pytest with code {code}"
    return "timed out" if code is None else f"survived {len(ran)} of {len(reaching) + len(others)} tests"


def run(listed: Path) -> None:
    recorded = json.loads(recording().read_text(encoding="utf-8"))
    for text in listed.read_text(encoding="utf-8").splitlines():
        with worktree() as root:
            mutant = find_again(root, json.loads(text))
            outcome = {"fast": "the line is gone"}
            if mutant:
                path = root / mutant["file"]
                source = path.read_text(encoding="utf-8")
                path.write_text(source.replace(mutant["old"], mutant["new"]), encoding="utf-8")
                outcome = {"fast": try_mutant(root, mutant, recorded, slow=False)}
                if outcome["fast"].startswith(("survived", "no test")):
                    outcome["slow"] = try_mutant(root, mutant, recorded, slow=True)
            shown = mutant or json.loads(text)
            print(json.dumps({name: shown[name] for name in ("file", "line", "change")} | outcome), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "draw", "run"))
    parser.add_argument("names", nargs="*", help="paths of tests, rooms such as lm/model, or the list")
    parser.add_argument("-m", default="", help="record only tests that match this expression of marks (pytest -m)")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=41)
    options = parser.parse_args()
    if options.action == "record":
        record([*options.names, "-m", options.m])
    elif options.action == "draw":
        for mutant in draw(REPOSITORY, options.names, options.count, options.seed):
            print(json.dumps(mutant))
    else:
        run(Path(*options.names))


if __name__ == "__main__":
    main()

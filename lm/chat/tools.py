"""Tools that an assistant can call: a calculator, and a search in the corpus that its model was trained on.

Others are functions of Tools: the arguments of a call are passed by keyword, and the returned text is what the model
reads.
"""

import ast
import inspect
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lm.errors import InputError, shown
from lm.run_paths import RunPaths
from lm.tokenizer.base import Tokenizer

if TYPE_CHECKING:
    from lm.corpus_index.index import Document

MOST_DIGITS = 300
"""Maximum digits of a number that the calculator computes."""
MOST_EXPRESSION = 1000
"""Maximum characters of an expression."""
OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}  # fmt: skip
MOST_QUERY = 200
"""Maximum characters of a query."""
MOST_PLACES = 100
"""Maximum occurrences of one spelling of a query that are ranked."""
PASSAGE_CHARACTERS = 300
"""Approximate maximum length of a passage; it ends with a sentence."""
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")
DEFINES = re.compile(r"(?: ?\([^)\n]{0,200}\))?(?:,[^.\n]{0,100}?,)? (?:is|are|was|were)\b")
"""Follows a name that a paragraph explains: "X is", "X (1809-1865) was", "X, also called Y, are"."""
NOTHING = "Nothing found."


class Source(NamedTuple):
    """Where a passage comes from."""

    url: str
    split: str
    """train or val."""
    document: int
    """Number of the document in its split's tables."""
    passage: str


@dataclass(frozen=True)
class Result:
    """What a tool returned."""

    text: str
    """What the model reads."""
    sources: tuple[Source, ...] = ()
    """What people see with the answer."""


def calculator(expression: str) -> str:
    """Compute an arithmetic expression with + - * / // % ** and parentheses, such as "(3 + 4) * 12"."""
    try:
        if len(expression) > MOST_EXPRESSION:
            raise ValueError(f"an expression has at most {MOST_EXPRESSION} characters")
        value = computed(ast.parse(expression.strip().replace("×", "*").replace("^", "**"), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError, TypeError) as error:
        return f"Error: {shown(str(error), quotes=False)}"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def computed(node: ast.AST) -> int | float:
    """Value of an arithmetic expression. Raises ValueError for anything else, and for numbers that are too long."""
    value: Any = None
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = node.value
    elif isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        value = OPERATORS[type(node.op)](computed(node.operand))
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = computed(node.left), computed(node.right)
        if isinstance(node.op, ast.Pow) and left and abs(right) * abs(math.log10(abs(left))) > MOST_DIGITS:
            raise ValueError(f"the result has more than {MOST_DIGITS} digits")
        value = OPERATORS[type(node.op)](left, right)
    if not isinstance(value, int | float):
        raise ValueError("this is not arithmetic with real numbers")
    if not abs(value) < 10**MOST_DIGITS:
        raise ValueError(f"a number has more than {MOST_DIGITS} digits")
    return value


class Search:
    """Search for a name in the documents that a run was trained on."""

    def __init__(self, run: Path, tokenizer: Tokenizer):
        """`run` is the folder of the pretrained run, whose tokens `tokenizer` shares. Raises InputError if it has no
        corpus index."""
        from lm.corpus_index.index import CorpusIndex  # needs pyarrow, which a machine with only JAX lacks

        self.index, self.tokenizer = CorpusIndex(run), tokenizer

    def __call__(self, query: str) -> Result:
        """Return the passage about a name or term, such as "Characiformes": the paragraph that begins with it, or else
        the one that mentions it earliest."""
        query = query.strip()
        if len(query) > MOST_QUERY:
            return Result(NOTHING)
        capital = query[:1].upper() + query[1:]
        # Where a paragraph begins, the first word is another token than within a text.
        written = [f"{article}{name}" for name in (query, capital) for article in ("", "The ", "A ", "An ") if query]
        tokens = [self.tokenizer.encode(one) for one in written]
        tokens += [self.tokenizer.encode(f" {name}") for name in (query, capital) if query]
        best: tuple[tuple[bool, bool, int], str, Document] | None = None
        for some in dict.fromkeys(map(tuple, tokens)):
            for spot in self.index.find(some).spots(MOST_PLACES):
                document = self.index.document_at(spot)
                paragraph = self.paragraph(document, spot.position)
                rank = rank_of(paragraph, query, capital)
                if rank and (best is None or rank < best[0]):
                    best = rank, paragraph, document
            if best and best[0][:2] == (False, False):
                break
        if best is None:
            return Result(NOTHING)
        passage = cut_passage(best[1])
        return Result(passage, (Source(best[2].url, best[2].split, best[2].number, passage),))

    def paragraph(self, document: "Document", position: int) -> str:
        """Paragraph of a document around a token of its part, or some 4,000 characters of it."""
        tokens, margin = document.part.tokens, 4 * PASSAGE_CHARACTERS
        begin, end = max(document.begin, position - margin), min(document.end, position + margin)
        before = self.tokenizer.decode(tokens[begin:position].tolist()).rpartition("\n")[2]
        return before + self.tokenizer.decode(tokens[position:end].tolist()).partition("\n")[0]


def rank_of(paragraph: str, *names: str) -> tuple[bool, bool, int] | None:
    """Rank of a paragraph for a name in some spellings, lowest first: (whether it does not begin with the name, whether
    it does not define it, where it is). None if it does not have the name as whole words."""
    found = re.search(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)", paragraph)
    if not found:
        return None
    begins = paragraph[: found.start()].strip() in ("", "The", "A", "An")
    return not begins, not DEFINES.match(paragraph, found.end()), found.start()


def sentences(text: str) -> list[str]:
    """Split a paragraph into sentences."""
    return [one for one in SENTENCE_END.split(text) if one]


def cut_passage(paragraph: str) -> str:
    """Return the first sentences of a paragraph, up to PASSAGE_CHARACTERS, but at least one."""
    found = ""
    for sentence in sentences(paragraph.strip()):
        if found and len(found) + 1 + len(sentence) > PASSAGE_CHARACTERS:
            break
        found = f"{found} {sentence}".strip()
    return found[: 2 * PASSAGE_CHARACTERS]


@dataclass(frozen=True)
class Tools:
    """Tools by name."""

    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def call(self, name: str, arguments: Mapping[str, Any]) -> Result:
        """Call a tool; errors of the call are its result, so that the model can read them."""
        function = self.functions.get(name)
        if function is None:
            return Result(f"Error: there is no function {shown(name)}, only {', '.join(self.functions) or 'none'}.")
        try:
            parameters = inspect.signature(function).bind(**arguments).signature.parameters
        except TypeError as error:
            return Result(f"Error: {name}: {error}.")
        for key, value in arguments.items():
            kind = parameters[key].annotation if key in parameters else None
            if kind in KINDS and not isinstance(value, (int, float) if kind is float else kind):
                return Result(f"Error: {name}: {key} is {shown(value)}, but it must be of the type {KINDS[kind]}.")
        try:
            result = function(**arguments)
        except (InputError, OSError, ValueError, TypeError, AttributeError, ArithmeticError, LookupError) as error:
            return Result(f"Error: {name}: {shown(str(error), quotes=False)}")
        return result if isinstance(result, Result) else Result(str(result))


NO_TOOLS = Tools()


def tools_of(base: str, tokenizer: Tokenizer) -> Tools:
    """Tools of a run that was finetuned from the run in the folder `base`: the calculator, and the search if that has a
    corpus index."""
    functions: dict[str, Callable[..., Any]] = {"calculator": calculator}
    if base and RunPaths(base).corpus_index.is_dir():
        functions["search"] = Search(Path(base), tokenizer)
    return Tools(functions)


KINDS = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}

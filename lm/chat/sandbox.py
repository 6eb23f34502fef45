"""Jinja environment for chat templates from strangers: they can read their arguments, and nothing else, and end soon.

A template can use only the syntax, functions, methods, filters and tests that are listed here: those of published
templates, and a few more. A Meter bounds each rendering. It is paid steps, for each node of the syntax tree in the body
of a loop or macro and for all that comparisons, filters and methods read, and bytes, for all that they compute; a
result that can be larger than its operands is paid before it is computed.
"""

import functools
import itertools
import json
import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jinja2
from jinja2 import filters, nodes, tests
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import SandboxedEnvironment, safe_range
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from lm.errors import UsageError, shown

MOST_STEPS = 2**21
STEPS_PER_VALUE = 2**11
"""More steps for each string of the conversation."""
STEPS_PER_PAIR, MOST_FOR_PAIRS = 2**6, 2**29
"""More steps for each pair of messages, and their maximum: templates have loops over messages within such loops."""
MOST_BYTES = 2**26
"""Maximum bytes of all values that a rendering computes, with those that it no longer uses."""
BYTES_PER_VALUE, BYTES_PER_CHARACTER = 2**11, 2**6
BYTES_PER_PAIR, MOST_BYTES_FOR_PAIRS = 2**8, 2**28
"""More bytes for each pair of messages, and their maximum: some templates append each message to a text."""
LARGEST, LARGEST_PER_CHARACTER = 2**22, 2**3
"""Maximum bytes of one value, and more for each character of the conversation."""
MOST_DEPTH = 64
"""Maximum nesting of a value that is compared, sorted or converted to text; messages.MOST_DEPTH is less."""
MOST_BITS = 128
"""Maximum size of a computed integer."""
MOST_DIGITS = 20
"""Maximum precision of the filter round."""
STEPS_PER_ROUND, STEPS_PER_CALL = 8, 32
"""Additional steps of a round of a loop, and of a call."""
MOST_NODES = 2**13
"""Maximum nodes of a template's syntax tree, which is compiled; published ones have up to 1,300."""
NODES = (
    nodes.Add, nodes.And, nodes.Assign, nodes.AssignBlock, nodes.Break, nodes.Call, nodes.CallBlock, nodes.Compare,
    nodes.Concat, nodes.CondExpr, nodes.Const, nodes.ContextReference, nodes.Continue, nodes.Dict, nodes.Div,
    nodes.ExtensionAttribute, nodes.Filter, nodes.FilterBlock, nodes.FloorDiv, nodes.For, nodes.Getattr, nodes.Getitem,
    nodes.If, nodes.Keyword, nodes.List, nodes.Macro, nodes.Mod, nodes.Mul, nodes.NSRef, nodes.Name, nodes.Neg,
    nodes.Not, nodes.Operand, nodes.Or, nodes.Output, nodes.Pair, nodes.Pos, nodes.Slice, nodes.Sub, nodes.Template,
    nodes.TemplateData, nodes.Test, nodes.Tuple,
)  # fmt: skip
OBJECT_BYTES, ELEMENT_BYTES = 128, 96
"""Bytes of a call or new collection, and of each of its elements, such as a method: Python counts only a pointer."""
METHODS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (str, (
        "capitalize", "count", "endswith", "find", "isdigit", "join", "lower", "lstrip", "removeprefix", "removesuffix",
        "replace", "rfind", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
    )),
    (dict, ("get", "items", "keys", "values")),
    (LoopContext, (
        "changed", "cycle", "depth", "depth0", "first", "index", "index0", "last", "length", "nextitem", "previtem",
        "revindex", "revindex0",
    )),
)  # fmt: skip
"""(type, its attributes that a template can read), besides all of namespace()."""
WHOLE = (
    "capitalize", "dictsort", "e", "escape", "join", "lower", "max", "min", "safe", "sort", "string", "trim", "unique",
    "upper",
)  # fmt: skip
"""Filters that read all that their value holds."""
PARTS = (
    "abs", "count", "d", "default", "first", "float", "indent", "int", "items", "last", "length", "list", "map",
    "reject", "rejectattr", "replace", "reverse", "round", "select", "selectattr", "tojson",
)  # fmt: skip
"""Filters that read only its elements, or pay for it themselves."""
EACH = (
    "dictsort",
    "join",
    "list",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "select",
    "selectattr",
    "sort",
    "unique",
)
"""Filters that evaluate their arguments for each element, and make a text a list of texts."""
NEW_ELEMENTS = ("dictsort", "items", "map")
"""Filters that compute the elements of their lists."""
TESTS = (
    "boolean", "callable", "defined", "divisibleby", "even", "false", "float", "integer", "iterable", "mapping", "none",
    "number", "odd", "sameas", "sequence", "string", "true", "undefined",
)  # fmt: skip
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "lteq": operator.le, "gt": operator.gt,
    "gteq": operator.ge, "in": lambda left, right: left in right, "notin": lambda left, right: left not in right,
}  # fmt: skip
COMPARING_TESTS = {
    "eq": "eq", "equalto": "eq", "==": "eq", "ne": "ne", "!=": "ne", "lt": "lt", "lessthan": "lt", "<": "lt",
    "le": "lteq", "<=": "lteq", "gt": "gt", "greaterthan": "gt", ">": "gt", "ge": "gteq", ">=": "gteq", "in": "in",
}  # fmt: skip
VIEWS = tuple(type(view) for view in ({}.keys(), {}.values(), {}.items()))
HOLDERS = (dict, list, tuple, range, *VIEWS)
SIZED = (str, *HOLDERS)
COMPUTED = (str, range, *VIEWS)
"""Values whose elements are computed."""
CHARACTER_IN_LIST = 84
"""Bytes of a list for each character of a text that becomes a string of its own."""
METER = "(meter)"
"""Variable with the Meter of the rendering; no template can name it."""


class TemplateError(UsageError):
    """The template is invalid, or refuses a conversation."""


class TemplateLimitError(TemplateError):
    """A rendering exceeds its Meter."""


class RenderingStopped(Exception):  # noqa: N818
    """Nobody waits for the rendering any more."""


class QuietNamespace(Namespace):
    """namespace() of a template; its text does not show what it holds."""

    def __repr__(self) -> str:
        return "namespace"


class Meter:
    """What a rendering can still compute. The methods raise TemplateLimitError if it is less than they need, and
    RenderingStopped if `stops` returns True."""

    def __init__(self, messages: int, values: int, characters: int, stops: Callable[[], bool] = bool):
        """`messages` is the number of messages of the conversation, `values` that of their strings, and `characters`
        the length of all strings."""
        self.steps = MOST_STEPS + STEPS_PER_VALUE * values + min(STEPS_PER_PAIR * messages**2, MOST_FOR_PAIRS)
        self.bytes = MOST_BYTES + BYTES_PER_VALUE * values + BYTES_PER_CHARACTER * characters
        self.bytes += min(BYTES_PER_PAIR * messages**2, MOST_BYTES_FOR_PAIRS)
        self.largest = LARGEST + LARGEST_PER_CHARACTER * characters
        self.stops = stops

    def step(self, count: int = 1) -> None:
        """Pay `count` steps."""
        self.steps -= count
        if self.steps < 0:
            raise TemplateLimitError(
                "The chat template takes too many steps for this conversation. Use another template."
            )
        if self.stops():
            raise RenderingStopped

    def expect(self, size: int) -> None:
        """Refuse a value of `size` bytes before it is computed."""
        if size > min(self.largest, self.bytes):
            raise TemplateLimitError(
                "The chat template computes values that are too large for this conversation. Use another template."
            )

    def keep(self, value: Any) -> Any:
        """Pay for a new value, without what it holds, and return it; iterators become lists."""
        if hasattr(value, "__next__"):
            value = list(value)
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise TemplateLimitError(f"The chat template computes an integer of more than {MOST_BITS} bits.")
        size = sys.getsizeof(value)
        self.expect(size)
        self.bytes -= size
        self.step(1 + size // 64)
        return value

    def make(self, elements: int) -> None:
        """Pay for a call or a new collection with `elements` arguments or elements."""
        self.bytes -= OBJECT_BYTES + ELEMENT_BYTES * elements
        self.expect(0)

    def read(self, value: object, indent: int = 0) -> int:
        """Pay for reading a value with all that it holds, and return its size in bytes. `indent` is a number of
        characters that are written before each value for each level above it."""
        size, count = 0, 0
        stack: list[Iterator[Any]] = [iter((value,))]
        while stack:
            for one in stack[-1]:
                count += 1
                size += 16 + indent * len(stack) + (sys.getsizeof(one) if isinstance(one, str) else 0)
                if isinstance(one, HOLDERS):
                    stack.append(itertools.chain(one, one.values()) if isinstance(one, dict) else iter(one))
                    break
                if count > self.steps:
                    self.step(count)
            else:
                stack.pop()
            self.expect(size)
            if len(stack) > MOST_DEPTH:
                raise TemplateLimitError(f"The chat template nests values more than {MOST_DEPTH} times.")
        self.step(count + size // 64)
        return size

    def strip(self, text: str, given: tuple[object, ...]) -> None:
        """Pay for stripping characters: each is looked for in their set."""
        self.step(len(text) * sum(len(str(one)) for one in given) // 1024)


@jinja2.pass_context
def spend(context: Context, value: object, steps: int, size: int) -> object:
    """Pay for a round of a loop, or a call of a macro, and return the value."""
    meter = context[METER]
    meter.expect(size)
    meter.bytes -= size
    meter.step(steps)
    return value


@jinja2.pass_context
def key(context: Context, value: object) -> object:
    """Pay for a computed key."""
    context[METER].read(value)
    return value


@jinja2.pass_context
def part(context: Context, value: object) -> object:
    """Pay for a slice."""
    return context[METER].keep(value)


@jinja2.pass_context
def literal(context: Context, value: Any) -> object:
    """Pay for a list, tuple or object that the template writes."""
    context[METER].make(len(value))
    return context[METER].keep(value)


@jinja2.pass_context
def text(context: Context, value: object) -> str:
    """Convert a part of the output, or an operand of ~."""
    meter = context[METER]
    if not isinstance(value, str):
        meter.read(value)
        value = str(value)
    return meter.keep(value)


@jinja2.pass_context
def compare(context: Context, left: object, name: str, right: object) -> bool:
    meter = context[METER]
    if name in ("in", "notin"):
        meter.read(left)
        meter.read(None if isinstance(right, dict) else right)
    elif isinstance(left, SIZED) and isinstance(right, SIZED):
        meter.read(left)
        meter.read(right)
    return COMPARISONS[name](left, right)


INTERNAL = {f"({function.__name__})": function for function in (spend, key, part, literal, text, compare)}
"""Filters that the Metering inserts; no template can name them."""


@jinja2.pass_context
def replace(context: Context, text: object, old: object, new: object, count: int | None = None) -> str:
    text, old, new = str(text), str(old), str(new)
    context[METER].expect(4 * (len(text) + text.count(old) * len(new) * (len(new) > len(old))))
    return text.replace(old, new, -1 if count is None else count)


@jinja2.pass_context
def join(context: Context, value: Any, d: object = "", attribute: str | int | None = None) -> str:
    get = filters.make_attrgetter(context.environment, attribute)
    parts = list(map(str, value if attribute is None else map(get, value)))
    context[METER].expect(sum(map(sys.getsizeof, parts)) + 4 * len(parts) * len(str(d)))
    return str(d).join(parts)


@jinja2.pass_context
def indent(context: Context, text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    size = len(width) if isinstance(width, str) else width
    context[METER].expect(4 * (len(text) + (len(text.splitlines()) + 1) * size))
    return filters.do_indent(text, width, first, blank)


@jinja2.pass_context
def rounded(context: Context, value: float, precision: int = 0, method: Any = "common") -> float:
    if abs(precision) > MOST_DIGITS:
        raise TemplateLimitError(f"The chat template rounds to {shown(precision)} digits; {MOST_DIGITS} is the limit.")
    return filters.do_round(value, precision, method)


@jinja2.pass_context
def tojson(context: Context, value: Any, ensure_ascii: bool = False, indent: int | str | None = None,
           separators: Any = None, sort_keys: bool = False) -> str:  # fmt: skip
    """The filter tojson as in transformers: without escapes for HTML."""
    width = len(indent) if isinstance(indent, str) else max(0, indent or 0)
    context[METER].read(value, width + sum(map(len, separators or ())))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@jinja2.pass_context
def trim(context: Context, value: object, chars: str | None = None) -> str:
    context[METER].strip(str(value), (chars,))
    return str(value).strip(chars)


OWN_FILTERS = {"trim": trim, "replace": replace, "join": join, "indent": indent, "round": rounded, "tojson": tojson}


def metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter or test with payment for what it reads and returns."""
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

    def call(context: Context, value: Any, *given: Any, **named: Any) -> Any:
        meter = context[METER]
        elements = len(value) if isinstance(value, SIZED) else 1
        size = meter.read((given, *named.values()))
        if name in EACH:  # the name of an attribute
            meter.step(elements * (1 + size // 64))
            meter.expect(CHARACTER_IN_LIST * elements * isinstance(value, str))
        if name in NEW_ELEMENTS or (name in EACH and isinstance(value, COMPUTED)):
            meter.make(elements)
        if name in WHOLE:
            size = meter.read(value)
            if name in ("sort", "dictsort"):
                meter.step(elements.bit_length() * (elements + size // 64))
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        return meter.keep(function(*([first[passed]] if passed else []), value, *given, **named))

    return jinja2.pass_context(call)


class Metering(NodeTransformer):
    """Refuses other syntax, and puts payments into a template."""

    def generic_visit(self, node: nodes.Node, *given: Any, **named: Any) -> nodes.Node:
        if not isinstance(node, NODES) or (isinstance(node, nodes.For) and node.recursive):
            recursive = "recursive " * isinstance(node, nodes.For)
            raise TemplateError(f"The chat template uses {recursive}{type(node).__name__.lower()}, which is refused.")
        node = super().generic_visit(node, *given, **named)
        if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock):
            costs = cost_of(*node.body, *getattr(node, "defaults", ()))
            node.body.insert(0, nodes.ExprStmt(paid("spend", nodes.Const(None), *costs)))
            if isinstance(node, nodes.For) and node.test is not None:
                node.test = paid("spend", node.test, *cost_of(node.test))
        elif isinstance(node, nodes.Output | nodes.Concat):
            node.nodes = [
                one if isinstance(one, nodes.TemplateData | nodes.Const) else paid("text", one) for one in node.nodes
            ]
        elif isinstance(node, nodes.Compare):
            found, left = [], node.expr
            for operand in node.ops:  # a < b < c is a < b and b < c
                found.append(paid("compare", left, nodes.Const(operand.op), operand.expr))
                left = operand.expr
            return functools.reduce(nodes.And, found)
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            return paid("part", node)
        elif isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Const):
            node.arg = paid("key", node.arg)
        elif isinstance(node, nodes.Pair):
            node.key = paid("key", node.key)
        elif isinstance(node, nodes.List | nodes.Dict | nodes.Tuple) and getattr(node, "ctx", "load") == "load":
            return paid("literal", node)
        return node


def paid(name: str, node: Any, *given: nodes.Expr) -> nodes.Filter:
    """The expression, with an internal filter around it."""
    return nodes.Filter(node, f"({name})", list(given), [], None, None, lineno=node.lineno)


def cost_of(*given: nodes.Node) -> tuple[nodes.Const, nodes.Const]:
    """Steps and bytes to evaluate the nodes once, without the results that are paid for separately."""
    inner = [*given, *(one for node in given for one in node.find_all(nodes.Node))]
    data = sum(4 * len(one.data) for one in inner if isinstance(one, nodes.TemplateData))
    return nodes.Const(STEPS_PER_ROUND + len(inner)), nodes.Const(data)


class Sandbox(SandboxedEnvironment):
    """The environment."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%"])

    def __init__(self, **settings: Any):
        # No optimizer: it computes constant expressions before there is a Meter.
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, **settings)
        known = filters.FILTERS | OWN_FILTERS
        self.filters = {name: metered(name, known[name]) for name in (*WHOLE, *PARTS)} | INTERNAL
        self.tests = {name: metered(name, tests.TESTS[name]) for name in TESTS}
        for name, comparison in COMPARING_TESTS.items():
            self.tests[name] = jinja2.pass_context(
                lambda context, left, right, name=comparison: compare(context, left, name, right)
            )
        self.globals = {"range": safe_range, "dict": dict, "namespace": QuietNamespace}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        if sum(1 for _ in tree.find_all(nodes.Node)) > MOST_NODES:
            raise TemplateError(f"The chat template is too long to compile: more than {MOST_NODES:,} nodes.")
        return Metering().visit(tree)

    def call_filter(self, name: str, *given: Any, **named: Any) -> Any:
        """Call the filter that a template names in map. Raises jinja2.TemplateRuntimeError for our internal ones."""
        if name in INTERNAL:
            raise jinja2.TemplateRuntimeError(f"No filter named {name!r}.")
        return super().call_filter(name, *given, **named)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        return any(isinstance(obj, kind) and attr in names for kind, names in METHODS)

    def wrap_str_format(self, value: Any) -> None:
        return None  # is_safe_attribute refuses it

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = context[METER]
        if operator == "%" and isinstance(left, str):
            raise TemplateLimitError("The chat template formats a string with %, which is refused.")
        if operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, str | list | tuple) and isinstance(times, int):
                    meter.expect(sys.getsizeof(one) * times)
        elif operator == "+" and isinstance(left, str | list | tuple):
            meter.expect(sys.getsizeof(left) + sys.getsizeof(right))
        return meter.keep(super().call_binop(context, operator, left, right))

    def call(self, context: Context, function: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
        meter = context[METER]
        meter.step(STEPS_PER_CALL)
        meter.make(len(given) + len(named))
        own, method = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if not isinstance(function, Macro):
            meter.read((given, *named.values()))
            if isinstance(own, str):
                meter.step(len(own) // 1024)
                if method in ("strip", "lstrip", "rstrip"):
                    meter.strip(own, given)
                elif method == "replace":
                    function = functools.partial(replace, context, own)
                elif method == "join":
                    function = functools.partial(join, context, d=own)
        result = meter.keep(super().call(context, function, *given, **named))
        if isinstance(result, list) and isinstance(own, str):  # the parts of a text
            meter.make(len(result))
        return result

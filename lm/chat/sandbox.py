"""Jinja environment for chat templates from strangers: they can read their arguments, and nothing else, and end soon.

A rendering has MOST_STEPS steps, and some for each character of the conversation. It spends them on the rounds of
loops, and on the characters and elements of all that operators, filters, calls, lists and {{ }} give. Comparisons are
free.
"""

import functools
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jinja2
from jinja2 import filters, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from lm.errors import UsageError, shown

MOST_STEPS = 2**20
STEPS_PER_CHARACTER = 64
MOST_TEXT = 2**22
"""Maximum characters that *, replace, join or indent compute."""
FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "int", "items", "last",
    "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "round", "safe", "select",
    "selectattr", "sort", "string", "title", "trim", "unique", "upper",
)  # fmt: skip
"""Filters of Jinja that a chat template can use, besides replace, join, indent and tojson."""
REFUSED_METHODS = ("center", "expandtabs", "ljust", "rjust", "translate", "zfill")
"""Methods of strings whose results can have any length."""
BUDGET = "(budget)"
"""Variable with the steps that are left; no template can name it."""


class TemplateError(UsageError):
    """The template is invalid, or refuses a conversation."""


class QuietNamespace(Namespace):
    """namespace() of a template; its text does not show what it holds."""

    __repr__ = object.__repr__


def size_of(value: object, most: int) -> int:
    """Characters and elements of a value, with all that it holds; stops above `most`."""
    total, waiting = 0, [value]
    while waiting and total <= most:
        one = waiting.pop()
        total += len(one) if isinstance(one, str) else 1
        if isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, Collection) and not isinstance(one, str):
            waiting += one
    return total


def refuse_long(size: int, what: str) -> None:
    if size > MOST_TEXT:
        raise TemplateError(f"The chat template computes {what} with {size:,} characters, which is refused.")


def spend(context: Context, steps: int) -> None:
    """Raises TemplateError if there are fewer steps left."""
    left = context[BUDGET]
    left[0] -= steps + 1
    if left[0] < 0:
        raise TemplateError("The chat template takes too many steps for this conversation. Use another template.")


@jinja2.pass_context
def spend_length(context: Context, value: Any) -> Any:
    """Internal filter of what loops run over, and of the results of most filters, whose elements are not new."""
    if hasattr(value, "__iter__") and not hasattr(value, "__len__"):
        value = list(value)
    spend(context, len(value) if hasattr(value, "__len__") else 0)
    return value


@jinja2.pass_context
def spend_size(context: Context, value: Any) -> Any:
    """Internal filter of what becomes text, or holds other values."""
    if hasattr(value, "__next__"):
        value = list(value)
    spend(context, size_of(value, context[BUDGET][0]))
    return value


def replace(text: object, old: object, new: object, count: int | None = None) -> str:
    text, old, new = str(text), str(old), str(new)
    refuse_long(len(text) + text.count(old) * len(new) * (len(new) > len(old)), "a text by replace")
    return text.replace(old, new, -1 if count is None else count)


@jinja2.pass_environment
def join(environment: jinja2.Environment, value: Any, d: object = "", attribute: str | int | None = None) -> str:
    parts = list(value if attribute is None else map(filters.make_attrgetter(environment, attribute), value))
    refuse_long(len(parts) * len(str(d)), "separators")
    return str(d).join(map(str, parts))


def indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    refuse_long((len(text.splitlines()) + 1) * (len(width) if isinstance(width, str) else width), "blanks")
    return filters.do_indent(text, width, first, blank)


def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
           sort_keys: bool = False) -> str:  # fmt: skip
    """The filter tojson as in transformers: without escapes for HTML."""
    if size_of([indent, separators], 99) > 99 or (isinstance(indent, int) and indent > 99):
        raise TemplateError(f"The chat template calls tojson with indent = {shown(indent)}, which is refused.")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def metered(node: nodes.Node, spending: str = "spend_size") -> nodes.Filter:
    """The expression, with an internal filter around it."""
    return nodes.Filter(node, spending, [], [], None, None, lineno=node.lineno)


class Metered(NodeTransformer):
    """Puts the internal filters around the expressions of a template."""

    def generic_visit(self, node: nodes.Node, *given: Any, **named: Any) -> nodes.Node:
        node = super().generic_visit(node, *given, **named)
        if isinstance(node, nodes.FilterBlock) or (isinstance(node, nodes.For) and node.recursive):
            raise TemplateError("The chat template has a recursive loop or {% filter %}, which is refused.")
        if isinstance(node, nodes.For):
            node.iter = metered(node.iter, "spend_length")
        elif isinstance(node, nodes.Output | nodes.Concat):
            node.nodes = [
                one if isinstance(one, nodes.TemplateData | nodes.Const) else metered(one) for one in node.nodes
            ]
        elif isinstance(node, nodes.Filter):
            return metered(node, "spend_size" if node.name == "map" else "spend_length")
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            return metered(node, "spend_length")
        elif isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
            return metered(node) if node.find(nodes.Name) else node
        return node


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment."""

    intercepted_binops = frozenset(["*", "**", "%", "+"])

    def __init__(self, **settings: Any):
        super().__init__(trim_blocks=True, lstrip_blocks=True, **settings)
        own = (replace, join, indent, tojson, spend_length, spend_size)
        self.filters = {name: filters.FILTERS[name] for name in FILTERS} | {one.__name__: one for one in own}
        allowed: dict[str, Any] = {name: self.globals[name] for name in ("range", "dict", "cycler", "joiner")}
        self.globals = allowed | {"namespace": QuietNamespace}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return Metered().visit(super()._parse(source, name, filename))

    def wrap_str_format(self, value: Any) -> None:
        if super().wrap_str_format(value) is not None:
            raise TemplateError("The chat template formats a string with format, which is refused.")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(one) if isinstance(one, str | list | tuple) else one for one in (left, right)]
        if operator == "**" or (operator == "*" and sizes[0] * sizes[1] > MOST_TEXT and not isinstance(left, float)):
            raise TemplateError(
                f"The chat template computes {shown(left)} {operator} {shown(right)}, which is refused."
            )
        if operator == "%" and isinstance(left, str):
            raise TemplateError("The chat template formats a string with %, which is refused.")
        return spend_size(context, super().call_binop(context, operator, left, right))

    def call(self, context: Context, function: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
        text, method = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(text, str) and method in REFUSED_METHODS:
            raise TemplateError(f"The chat template calls the method {method} of a string, which is refused.")
        if isinstance(text, str) and method == "replace":
            function = functools.partial(replace, text)
        elif isinstance(text, str) and method == "join":
            function = functools.partial(join, self, d=text)
        return spend_size(context, super().call(context, function, *given, **named))

"""The cost of a split pattern: bounds on its search time, derived from the expression.

Both engines, fancy-regex and Oniguruma, backtrack: if a match fails, every way to match the part before is tried.
`(a+)+$` has 2**n ways over n letters. So `runs_of` accepts a pattern only if each branch has at most one repetition
that a later failure can shorten (`\\s*[\\r\\n]+`), and few other choices: one attempt then takes linear time. All
published patterns are of this kind. Attempts from every position of a run still add up to its square (`a+b|.` over
letters a), so `check_text` bounds the squares of the runs in a text.
"""

import functools
import math
import re
from typing import Any, NamedTuple

from lm.errors import UsageError, shown
from lm.tokenizer.patterns import SPLIT_PATTERNS

MOST_WAYS = 64
"""Maximum number of ways to match a branch, apart from those of its one unbounded repetition."""
MOST_COPIES = 1000
"""Maximum product of the upper bounds of nested repetitions: engines copy the repeated part."""
MOST_CHARACTERS = 20_000
"""Maximum length of a pattern in characters."""
MOST_NESTED = 30
"""Maximum nesting depth of groups."""
MOST_STEPS, STEPS_A_CHARACTER = 50_000_000, 200
"""Maximum steps of a search through a text: a constant, plus a number per character. Engines take 40 million a
second."""
_GROUP = re.compile(r"\(\?(?:[ims-]*:|[=!]|<[=!]|>)")
_FLAGS = re.compile(r"\(\?[ims-]+\)")
_ESCAPE = re.compile(
    r"\\(?:[pP]\{\^?[\w ]{1,40}\}|[pP][A-Z]|x\{[0-9A-Fa-f]{1,8}\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}"
    r"|[sSdDwWhHrntfv]|[^\w])",
    re.ASCII,
)
_ANCHOR = re.compile(r"[\^$]|\\[bBAzZ]")
_COUNTED = re.compile(r"\{(?:(\d{1,9})(,)?(\d{1,9})?|,(\d{1,9}))\}")


class Node(NamedTuple):
    """A part of a parsed regular expression. If kind is repeat, from `least` to `most` (perhaps infinite) times."""

    kind: str
    """"character", "zero" (matches no character), "sequence", "branches", "group", "repeat" or "atomic"."""
    parts: "tuple[Node, ...]" = ()
    least: int = 1
    most: float = 1
    source: str = ""
    """The repeated expression, if kind is repeat."""


def check_text(pattern: str, text: str) -> None:
    """Raise UsageError if the search of `pattern` through `text` could take too many steps (see MOST_STEPS)."""
    runs = runs_of(pattern)
    if runs is None:
        return
    steps = sum((match.end() - match.start()) ** 2 for match in runs.finditer(text))
    most = MOST_STEPS + STEPS_A_CHARACTER * len(text)
    if steps > most:
        raise UsageError(
            f"the split pattern {shown(pattern)} would backtrack too long over {shown(text[:60])}: a text of "
            f"{len(text):,} characters with long runs could take {steps:,} steps; the limit is {most:,}. Shorten "
            "the long runs of similar characters in the text, such as white space, or use another tokenizer."
        )


@functools.lru_cache(16)
def runs_of(pattern: str) -> Any:
    """Return a compiled expression for the stretches of a text in which a search for `pattern` can take quadratic time:
    every attempt may scan to the end of the stretch and fail. None if no text has any, as for SPLIT_PATTERNS.

    Raises ValueError, with the reason, if a single attempt can take longer than linear time, or if the pattern uses
    syntax that is not analyzed here (back-references, calls, conditions).
    """
    import regex

    if pattern in SPLIT_PATTERNS.values():
        return None
    if len(pattern) > MOST_CHARACTERS:
        raise ValueError(f"the split pattern has {len(pattern):,} characters; the limit is {MOST_CHARACTERS:,}")
    tree, end = _branches(pattern, 0, 0)
    if end < len(pattern):
        raise ValueError(f"the split pattern has a ')' without '(' at character {end}")
    _check_copies(tree, 1)
    scanned: set[str] = set()
    degree, ways = _cost(tree, False, scanned)
    if degree > 1 or ways > MOST_WAYS:
        found = f"{degree} repetitions" if degree > 1 else f"{ways:,} ways"
        raise ValueError(
            f"the split pattern can backtrack too long: {found} in one branch can be tried again when a later part "
            f"fails; the limit is {'1' if degree > 1 else MOST_WAYS}"
        )
    try:
        each = [f"(?:{one})+" for one in sorted(scanned)]
        return regex.compile("|".join(each), regex.IGNORECASE | regex.DOTALL | regex.V1) if each else None
    except regex.error as error:
        what = shown(" ".join(sorted(scanned)))
        raise ValueError(f"the split pattern repeats {what}, which is not supported: {error}") from error


def _branches(pattern: str, at: int, nested: int) -> tuple[Node, int]:
    """Parse alternatives from `at` to the end or an unmatched ")"; return (node, end)."""
    if nested > MOST_NESTED:
        raise ValueError(f"the split pattern has groups nested more than {MOST_NESTED} deep")
    branches: list[Node] = []
    items: list[Node] = []
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            branches.append(Node("sequence", tuple(items)))
            items, at = [], at + 1
            continue
        item, at = _item(pattern, at, nested)
        items.append(item)
    branches.append(Node("sequence", tuple(items)))
    return (branches[0] if len(branches) == 1 else Node("branches", tuple(branches))), at


def _item(pattern: str, at: int, nested: int) -> tuple[Node, int]:
    """Parse one character, class, group or anchor with its repetitions; return (node, start of the next)."""
    start = at
    node, at = _atom(pattern, at, nested)
    while at < len(pattern):
        counted, source = _COUNTED.match(pattern, at), pattern[start:at]
        if pattern[at] in "?*+":
            least, most = {"?": (0, 1), "*": (0, math.inf), "+": (1, math.inf)}[pattern[at]]
            at += 1
        elif counted and any(counted.groups()):
            first, comma, last, upper = counted.groups()
            least = int(first or 0)
            most = int(last or upper or 0) if last or upper else math.inf if comma else least
            at = counted.end()
        else:
            break
        node = Node("repeat", (node,), least, most, source)
        if not counted and pattern[at : at + 1] == "?":  # reluctant: the same ways in another order
            at += 1
        elif not counted and pattern[at : at + 1] == "+":  # possessive
            node, at = Node("atomic", (node,)), at + 1
    return node, at


def _atom(pattern: str, at: int, nested: int) -> tuple[Node, int]:
    if flags := _FLAGS.match(pattern, at):
        return Node("sequence"), flags.end()
    if pattern[at] == "(":
        special = _GROUP.match(pattern, at)
        if special is None and pattern[at : at + 2] == "(?":
            raise ValueError(f"the split pattern has {pattern[at : at + 4]!r}, which is not supported")
        inner, end = _branches(pattern, special.end() if special else at + 1, nested + 1)
        if pattern[end : end + 1] != ")":
            raise ValueError("the split pattern has a '(' without ')'")
        kind = special[0][2:] if special else ""
        return Node("atomic" if kind == ">" else "zero" if kind[-1:] in ("=", "!") else "group", (inner,)), end + 1
    if anchor := _ANCHOR.match(pattern, at):
        return Node("zero"), anchor.end()
    if pattern[at] == "\\":
        escape = _ESCAPE.match(pattern, at)
        if escape is None:
            raise ValueError(f"the split pattern has {pattern[at : at + 3]!r}, which is not supported")
        return Node("character"), escape.end()
    if pattern[at] == "[":
        return Node("character"), _class_end(pattern, at)
    if pattern[at] in "?*+":
        raise ValueError(f"the split pattern repeats nothing at character {at}")
    return Node("character"), at + 1


def _class_end(pattern: str, at: int) -> int:
    """Return the end of the character class that begins at `at`; it may contain others."""
    depth = 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "[":
            if re.compile(r"\[\^?\]").match(pattern, at):
                raise ValueError("the split pattern has a class that begins with ']', which engines read differently")
            depth += 1
        elif pattern[at] == "]":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    raise ValueError("the split pattern has a '[' without ']'")


def _check_copies(node: Node, copies: int) -> None:
    if node.kind == "repeat":
        copies *= max(1, node.least, 1 if math.isinf(node.most) else int(node.most))
        if copies > MOST_COPIES:
            raise ValueError(f"the split pattern repeats a part up to {copies:,} times; the limit is {MOST_COPIES:,}")
    for part in node.parts:
        _check_copies(part, copies)


def _can_fail(node: Node) -> bool:
    """Whether there is a text that the node does not match at all."""
    if node.kind in ("character", "zero"):
        return True
    if node.kind == "repeat":
        return node.least > 0 and _can_fail(node.parts[0])
    if node.kind == "branches":
        return all(map(_can_fail, node.parts))
    return any(map(_can_fail, node.parts))


def _cost(node: Node, fails_after: bool, scanned: set[str]) -> tuple[int, int]:
    """Return (number of unbounded repetitions that a later failure shortens, number of other ways to match), and add
    what those repetitions repeat to `scanned`. `fails_after`: whether anything after the node can fail. Raises
    ValueError for a repeated part that can match in several ways."""
    if node.kind in ("character", "zero") and not node.parts:
        return 0, 1
    if node.kind == "sequence":
        degree, ways = 0, 1
        for part in reversed(node.parts):
            more, times = _cost(part, fails_after, scanned)
            degree, ways, fails_after = degree + more, ways * times, fails_after or _can_fail(part)
        return degree, ways
    if node.kind == "branches":
        costs = [_cost(part, fails_after, scanned) for part in node.parts]
        ways = [ways for _, ways in costs]
        return max(degree for degree, _ in costs), sum(ways) if fails_after else max(ways)
    (part,) = node.parts
    if node.kind == "group":
        return _cost(part, fails_after, scanned)
    if node.kind == "zero":  # a lookaround is evaluated again at each try
        return _cost(part, True, scanned)
    if node.kind == "atomic":
        return _cost(part, False, scanned)
    if node.most > 1 and fails_after and _cost(part, True, scanned) != (0, 1):
        raise ValueError(
            "the split pattern repeats a part that itself repeats or has alternatives, such as (a+)+x and (a|b)*x: "
            "it can backtrack too long"
        )
    degree, ways = _cost(part, fails_after, scanned)
    if not fails_after and node.most > 1:  # the part may fail once per iteration
        return 2 * degree, ways
    if not fails_after or node.least == node.most:
        return degree, ways
    if math.isinf(node.most):
        scanned.add(node.source)
        return degree + 1, ways
    return degree, ways + int(node.most) - node.least

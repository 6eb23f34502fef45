"""Chat templates that try to take the machine: its memory, its time, or objects of Python.

    python -m tests.lm.chat.attacks [--quick]

Renders each in a process of its own, with limits of memory and CPU time, and prints its outcome as a line of JSON;
--quick: only those of the review, with a sixteenth of the steps.
"""

import dataclasses
import json
import os
import resource
import sys
from pathlib import Path

from lm.chat import sandbox
from lm.chat.template import ChatTemplate, TemplateError
from tests.lm.chat.test_template import PLAIN, TALK

MEMORY, CPU_SECONDS = 2**29, 20
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}"
END = "{% endfor %}{% endfor %}"
GROW = "{% set ns = namespace(x=['a'], n=7, d={}) %}{% for i in range(60) %}{% set ns.x = "


def loops(body: str, begin: str = "") -> str:
    """`body` in ten thousand million rounds."""
    return begin + LOOP + body + END


def grows(more: str) -> str:
    """A value that doubles sixty times."""
    return GROW + more + " %}{% endfor %}{{ ns.x }}"


def nested(more: str, rounds: int = 99999) -> str:
    """A value that is nested very deeply."""
    return f"{{% set ns = namespace(x=()) %}}{{% for i in range({rounds}) %}}{{% set ns.x = {more} %}}{{% endfor %}}"


TEXT = "{% set x = 'a' * 3000000 %}"
WIDE = "{% set x = '😀' * 900000 %}"
LIST = "{% set l = range(90000)|list %}"
REVIEWED = (
    "{{ 'a'.encode().ljust(3000000000)|length }}", "{{ ('a'.encode() * 3000000000)|length }}",
    "{{ 'a'.encode().center(3000000000)|length }}", "{{ 'a'.encode().zfill(3000000000)|length }}",
    "{{ '\\t'.encode().expandtabs(3000000000)|length }}",
    "{{ ('a' * 9999).encode().replace('a'.encode(), ('b' * 999999).encode())|length }}",
    "{{ ('a' * 999999).encode().join(['a'.encode()] * 9999)|length }}", "{{ ('%3000000000d'.encode() % 1)|length }}",
    "{{ messages|length.to_bytes(3000000000, 'big') }}", "{% set x = 1 %}{{ x.to_bytes(3000000000, 'big')|length }}",
    "{{ 1|round(1000000000, 'ceil') }}", "{{ 1|round(-1000000000, 'floor') }}",
    "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x = ns.x * -ns.x %}{% endfor %}{{ ns.x > 1 }}",
    "{% set ns = namespace(x=['a']) %}{% for i in range(60) %}{% set ns.x = ns.x * 2 %}{% endfor %}{{ ns.x }}",
    loops("{{ -1 in l }}", LIST), loops("{% if -1 in range(99999) %}{% endif %}"),
    loops("{% if 'a' in range(99999) %}{% endif %}"),
    loops("{% if l == m %}{% endif %}", LIST + "{% set m = range(90000)|list %}"),
    loops("{% if x.isalpha() %}{% endif %}", TEXT), loops("{% if x.count('b') %}{% endif %}", TEXT),
    "{% for a in [1] %}" * 25 + "{% endfor %}" * 25,
)  # fmt: skip
"""Attacks of the review of 2 December 2026."""
OLDER = (
    "{{ 'a' * 99999999999 }}", "{{ 99999999999 * 'a' }}", "{{ [0] * 99999999999 }}", "{{ 9 ** 9 ** 9 }}",
    "{{ '%9999999999d' % 1 }}", "{{ 'a'|center(99999999999) }}", "{{ 'a'.ljust(99999999999) }}",
    "{{ '{:>99999999999}'.format(1) }}", "{{ '{a:>99999999999}'.format_map({'a': 1}) }}",
    "{{ 'a\\nb'|indent(99999999999) }}", "{{ [1]|tojson(indent=99999999999) }}",
    "{{ ('a' * 9999)|replace('a', 'b' * 9999) }}", "{{ ('a' * 9999).replace('a', 'b' * 9999) }}",
    "{{ ('a' * 9999).join(range(9999)) }}", "{{ range(9999)|join('a' * 9999) }}",
    "{% for a in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}", "{% for i in range(999999999) %}x{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", loops(""), loops("", "{% set r = range(99999)|list %}"),
    "{% macro f(n) %}{% if n < 40 %}{{ f(n + 1) }}{{ f(n + 1) }}{% endif %}{% endmacro %}{{ f(0) }}",
    "{% set x = 'ab' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "{% set x = 'a' * 999999 %}{{ " + "~".join("x" * 3000) + " }}",
    TEXT + "{% for i in range(99) %}{% set y = x[1:] %}{% endfor %}",
    "{{ ('a' * 999999)|map('replace', 'a', 'b')|list }}",
    *map(grows, (
        "ns.x + ns.x", "ns.x ~ ns.x", "[ns.x, ns.x]", "(ns.x, ns.x)", "{'a': ns.x, 'b': ns.x}", "dict(a=ns.x, b=ns.x)",
        "{}.fromkeys('ab', ns.x)", "(ns.x * 2, ns.x * 2)", "[1, 2]|map('default', ns.x, true)|list + [ns.x, ns.x]",
        "[ns.x, ns.x]|upper", "[ns.x, ns.x]|tojson", "[ns.x, ns.x]|join", "[ns.x, ns.x]|string",
    )),
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ cycler.__init__.__globals__ }}", "{{ lipsum() }}",
    "{% set _ = messages.append(1) %}",
)  # fmt: skip
NEW = (
    WIDE + "{{ x|list|length }}", WIDE + "{{ x|map('upper')|list|length }}", WIDE + "{{ x|select('string')|list }}",
    WIDE + "{{ x|sort|length }}", WIDE + "{{ x|join(x) }}", WIDE + "{{ x|batch(1)|list }}",
    WIDE + "{{ x|wordwrap(1) }}", loops("{% set y = x.split('a') %}", TEXT), loops("{% set y = x.strip(x) %}", TEXT),
    loops("{% set y = x|trim(x + 'b') %}", TEXT), loops("{% set y = x.find('b' * 1000) %}", TEXT),
    loops("{% set y = x|upper %}", TEXT), loops("{% set y = x.title() %}", TEXT), loops("{% set y = x[::-1] %}", TEXT),
    loops("{% set y = x is upper %}", TEXT), loops("{% set y = x == x + 'b' %}", TEXT), loops("{{ 'b' in x }}", TEXT),
    loops("{% set y = x < x + 'a' %}", TEXT), loops("{% set y = x.startswith(x) %}", TEXT),
    loops("{% set y = x.splitlines() %}", "{% set x = 'a\\n' * 999999 %}"), loops("{% set y = x|int %}", TEXT),
    loops("{% set y = {x: 1} %}", TEXT), loops("{% set y = {}[x ~ i] %}", TEXT), loops("{% set y = x|escape %}", TEXT),
    "{{ ('<' * 4000000)|escape|escape|escape }}", "{{ ('\\n' * 4000000)|indent(4, true, true) }}",
    "{{ ('\\n' * 9999)|indent('a' * 9999) }}", "{{ ('\\n' * 9999)|indent(9999999, true, true) }}",
    "{{ ('a' * 99999)|replace('', 'b' * 99999) }}", "{{ ('a' * 99999).replace('', 'b' * 99999, -1) }}",
    "{{ 'x'|replace('x', 'y' * 4000000)|replace('y', 'z' * 4000000) }}", "{{ ('\\x01' * 4000000)|tojson }}",
    "{{ ([[]] * 500000)|tojson(indent=99999) }}", "{{ [[[[]]]]|tojson(indent='a' * 4000000) }}",
    "{{ ([1] * 500000)|tojson(separators=('a' * 99999, 'b')) }}", "{{ '%s%s' % ('a' * 9, 1) }}", "{{ '%c' % 65 }}",
    "{{ '%*d' % (999999999, 1) }}", "{{ 'a'|format(1) }}", "{{ '{0.__class__}'.format(1) }}", "{{ 'a'|safe|format }}",
    "{{ ('%999999999d'|safe) % 1 }}", "{{ '{:999999999}'['format'](1) }}",
    "{{ ['{:999999999}']|map('format', 1)|list }}", "{{ 'ß'.casefold() * 999999999 }}", "{{ 'a'.zfill(999999999) }}",
    "{{ 'a'['ljust'](999999999) }}", "{{ 'a'|attr('ljust')(999999999) }}", "{{ '\\t'.expandtabs(999999999) }}",
    "{{ 'a'.translate({97: 'b' * 4000000}) }}", "{{ 'a' * 4000000 * 4000000 }}", "{{ (('a' * 999999),) * 999999999 }}",
    "{{ 'http://a.b ' * 300000 | urlize }}", "{{ {'a': 'b' * 99}|xmlattr }}", "{{ 'a'|truncate(9, end='b' * 9) }}",
    "{{ 'a b'|wordcount }}", "{{ '<a>'|striptags }}", "{{ 'a'|urlencode }}", "{{ 1000|filesizeformat }}",
    "{{ 'a'|pprint }}", "{{ 'a'|forceescape }}", "{{ [1]|random }}", "{{ [1, 2]|sum }}",
    "{{ [1]|slice(999999999)|list }}", "{{ [1]|batch(999999999, 0)|list }}", "{{ messages|groupby('role') }}",
    "{{ [{'a': 1}]|map('attr', 'items')|list }}", "{{ strftime_now('%Y' * 99999) }}", "{{ 1|spend(-999999999, -1) }}",
    "{{ [1]|map('(spend)', -999999999999)|list }}", "{{ raise_exception('a' * 4000000) }}", "{{ " + "9" * 5000 + " }}",
    "{{ ('9' * 4000)|int * 9 }}", "{{ ('f' * 999999)|int(0, 16) }}", "{{ 10 // 0 }}",
    "{{ ('1' * 999999)|int }}{{ 2 ** 999999999 }}", "{{ 1e308|int * 99 }}", "{{ 1e999|int * 2 }}{{ 1 << 9 }}",
    "{{ 1|round(10 ** 9) }}", "{{ 1|round(1e308|int) }}", "{{ 5|round(precision=99999999) }}",
    "{{ range(-99999999999999, 99999999999999) }}", "{{ range(10 * 10 * 10 * 10 * 10 * 10 * 10 * 10) }}",
    "{{ 7.as_integer_ratio() }}", "{% set x = 7 %}{{ x.bit_length() }}",
    "{% set ns = namespace(n=7) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n }}",
    "{% set ns = namespace(n=7) %}{% for i in range(999) %}{% set ns.n = ns.n + ns.n %}{% endfor %}{{ ns.n }}",
    grows("{'a': [ns.x], 'b': [ns.x]}"), grows("ns.x|list + ns.x|list"), grows("ns.x + ns.x|reverse|list"),
    grows("[ns.x, ns.x]|map('list')|list"), grows("[[ns.x, ns.x], ns.x]|sort"),
    grows("dict(ns.x|tojson|list|map('list')|list)"), grows("ns.x|string * 2"), nested("(ns.x,)") + "{{ {ns.x: 1} }}",
    nested("(ns.x,)") + "{{ {}[ns.x] }}", nested("[ns.x]") + "{{ ns.x == [ns.x] }}",
    nested("[ns.x]") + "{{ ns.x|tojson }}", nested("[ns.x]") + "{{ [ns.x]|unique }}",
    nested("(ns.x, ns.x)", 20) + "{% for i in range(99999) %}{% set y = {}[ns.x] %}{% endfor %}",
    "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x, range(99999)|list] %}{% endfor %}",
    "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x, namespace()] %}{% endfor %}" * 9,
    "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x, {}, [], {1: 2}] %}{% endfor %}" * 9,
    LIST + "{% for i in range(99999) %}{% set y = l|sort %}{% endfor %}",
    LIST + "{% for i in range(99999) %}{% set y = l|map('string')|join %}{% endfor %}",
    LIST + "{% for i in range(99999) %}{% set y = l|select('in', l)|list %}{% endfor %}",
    LIST + "{{ l|select('in', l)|list|length }}",
    LIST + "{% for i in l %}{% set y = l|reject('equalto', i)|list %}{% endfor %}",
    LIST + "{{ l|map(attribute='" + "a." * 9999 + "a')|list }}",
    LIST + "{% for i in l %}{% for j in l if j == i %}{% endfor %}{% endfor %}",
    LIST + "{% for i in l %}{% if l|max == l|min %}{% endif %}{% endfor %}",
    LIST + "{% for i in l %}{% set y = l|unique|list %}{% endfor %}",
    LIST + "{% for i in l %}{{ l|first }}{{ l|tojson }}{% endfor %}",
    LIST + "{% for i in l %}{% set y = l[:] %}{% endfor %}", LIST + "{% for i in l %}{% set y = l + l %}{% endfor %}",
    LIST + "{% for i in l %}{% set y = l|list %}{% endfor %}", LIST + "{% for i in l %}{{ l }}{% endfor %}",
    LIST + "{% for i in l %}{{ loop.changed(l) }}{% endfor %}",
    LIST + "{% for i in l %}{{ dict(l=l) == dict(l=l) }}{% endfor %}",
    LIST + "{% for i in l %}{{ (l, i) in {} }}{% endfor %}", LIST + "{% for i in l %}{{ l is in [l] }}{% endfor %}",
    LIST + "{% for i in l %}{{ l is sameas(l) and l is eq(l|list) }}{% endfor %}",
    LIST + "{% for i in l %}{% for j in l %}{{ loop.cycle(1, 2) }}{{ loop.length }}{% endfor %}{% endfor %}",
    loops("x" * 9999), loops("{% if" + " not" * 90 + " i %}{% endif %}"),
    loops("{% break %}").replace("range(99999)", "l", 1).replace("{% for", LIST + "{% for", 1) * 30,
    loops("{% continue %}"), loops("{% set x %}" + "y" * 999 + "{% endset %}"),
    loops("{% set ns.x = i %}", "{% set ns = namespace() %}"),
    "{% macro f(n) %}{% for i in range(9) %}{{ f(n + 1) }}{% endfor %}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{{ caller(n) }}{% endmacro %}{% call(n) f(9) %}" + LOOP + END + "{% endcall %}",
    "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(*range(99999)|list, **{'a': [1] * 400000}) * 99 }}",
    "".join(f"{{% macro f{n}() %}}{f'{{{{ f{n + 1}() }}}}' * 2}{{% endmacro %}}" for n in range(60)) + "{{ f0() }}",
    "{% generation %}" * 30 + "x" + "{% endgeneration %}" * 30 + loops("{% generation %}x{% endgeneration %}"),
    "{% for a in " + "[" * 300 + "]" * 300 + " %}{% endfor %}", "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
    "{{ " + "1 + " * 9999 + "1 }}", "{{ " + "not " * 9999 + "1 }}", "{{ " + "-" * 9999 + "1 }}",
    "{{ a" + ".a" * 9999 + " }}", "{{ a" + "|upper" * 9999 + " }}", "{% if a %}" * 999 + "{% endif %}" * 999,
    "{{ " + "a if b else " * 999 + "c }}", "{{ " + "'a' " * 60000 + " * 99999999 }}",
    "{{ a }}" * 37449, "{{ [" + "a," * 131068 + "] }}", "{{ " + "a ~ " * 65533 + "a }}",
    "{% macro f(" + "a, " * 9999 + "a) %}{% endmacro %}{{ f(" + "1," * 9999 + "1) }}{{ 9 ** 9 }}", "{% include 'a' %}",
    "{% import 'a' as b %}", "{% from 'a' import b %}", "{% extends 'a' %}", "{% do 1 %}",
    "{% block a %}{% endblock %}", "{% autoescape true %}{% endautoescape %}", "{% with a = 1 %}{% endwith %}",
    "{% trans %}a{% endtrans %}", "{% debug %}", "{{ self.__init__.__globals__ }}", "{{ super() }}",
    "{{ joiner().__init__ }}", "{{ cycler(1, 2).next() }}", "{{ namespace.__init__.__globals__ }}",
    "{{ range(3).__reduce__() }}", "{{ dict.mro() }}", "{{ messages|map(attribute='__class__')|list|first.mro }}",
    "{{ {}.update({1: 2}) }}", "{{ {}.setdefault(1, 2) }}", "{{ messages.clear() }}", "{{ messages[0].pop('role') }}",
    "{{ messages.sort() }}",
    "{% for a in [1] %}{{ loop._iterator }}{{ loop._recurse }}{{ loop.__init__ }}{{ loop._undefined.x }}{% endfor %}",
    "{{ raise_exception.__globals__ }}{{ raise_exception.__code__.co_code }}",
    "{% macro f() %}{% endmacro %}{{ f._func.x }}", "{% macro f() %}{% endmacro %}{{ f._environment.x }}",
    "{{ (1).real.x }}", "{{ 'a'.format.__self__ }}", "{{ ''.join.__self__.x.y }}",
    "{{ messages|select('callable')|list|first.x }}", "{{ (messages|first).items.__self__.x }}",
    "{{ undefined_name.x }}", "{{ undefined_name() }}", "{{ '(meter)'|upper }}{{ range.x.y }}",
)  # fmt: skip
HARMLESS = {
    "{{ messages.__class__ }}{{ messages['__class__'] }}{{ self._TemplateReference__context }}{{ loop.__class__ }}": "",
    "{{ namespace().__class__ }}{{ range.__globals__ }}{{ messages[0].pop }}{{ 'a'.format }}{{ (7).real }}": "",
    grows("namespace(a=ns.x, b=ns.x)"): "namespace", "{{ 'a'.encode is defined }}": "False",
    "{{ range(99999)|length }}": "99999", "{{ ('a' * 4000)|length }}": "4000", "{{ 1.23456|round(2) }}": "1.23",
    "{{ [3, 1, 2]|sort }}": "[1, 2, 3]", "{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}": "TrueFalse",
    "{{ messages is defined }}{{ self is defined }}": "TrueTrue", "{{ loop }}{{ super }}{{ caller }}": "",
    "{% for a in 'ab' %}{{ loop.index }}{{ a }}{% endfor %}": "1a2b",
    "{{ {'b': 1, 'a': 2}|dictsort }}": "[('a', 2), ('b', 1)]", "{{ [1, 2, 1]|unique|list }}": "[1, 2]",
    "{% filter upper %}x{% endfilter %}": "X", "{{ ['a', 'b']|join('-') }}{{ '-'.join(['a', 'b']) }}": "a-ba-b",
    "{{ 'aXbX'.replace('X', '', 1) }}{{ 'aXb'|replace('X', '') }}": "abXab", "{{ [1] * -5 }}{{ 'a' * -5 }}": "[]",
    "{{ 'a\\nb'|indent(2) }}": "a\n  b",
    "{{ {'é': [1, {'b': none}]}|tojson(indent=1) }}": '{\n "é": [\n  1,\n  {\n   "b": null\n  }\n ]\n}',
    "{{ ' a '|trim }}{{ 'xax'|trim('x') }}": "aa",
    "{{ (1, 2) == (1, 2) }}{{ 'a' in {'a': 1} }}{{ 1 not in [2] }}": "TrueTrueTrue",
}  # fmt: skip
"""Templates that look like attacks, and their texts."""
ATTACKS = (*REVIEWED, *OLDER, *NEW)


def outcome(jinja: str) -> dict[str, object]:
    """Render a template in a process with limits."""
    inner, outer = os.pipe()
    if pid := os.fork():
        os.close(outer)
        with os.fdopen(inner, "rb") as pipe:
            said = pipe.read()
        _, status, usage = os.wait4(pid, 0)
        ended = json.loads(said) if said else {"died": status}
        return ended | {"seconds": round(usage.ru_utime + usage.ru_stime, 2), "megabytes": usage.ru_maxrss // 1024}
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    memory = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    try:
        template = ChatTemplate(dataclasses.replace(PLAIN, chat_template=jinja))
        said = {"text": template.text(TALK)[:999]}
    except TemplateError as error:
        said = {"refused": str(error)}
    except BaseException as error:
        said = {"raised": f"{type(error).__name__}: {error}"[:999]}
    os.write(outer, json.dumps(said).encode())
    os._exit(0)


if __name__ == "__main__":
    quick = "--quick" in sys.argv
    vars(sandbox)["MOST_STEPS"] >>= 4 * quick
    for jinja in (*(REVIEWED if quick else ATTACKS), *HARMLESS):
        print(json.dumps({"template": jinja} | outcome(jinja)), flush=True)

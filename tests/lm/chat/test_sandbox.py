"""Templates that try to take the machine are refused at once, in processes with limits of memory and CPU time."""

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from lm.chat import sandbox
from lm.chat.template import ChatTemplate, TemplateError
from tests.lm.chat.attacks import ATTACKS, HARMLESS, REVIEWED
from tests.lm.chat.test_template import PLAIN

ROOT = Path(__file__).parents[3]


def outcomes(*options: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.lm.chat.attacks", *options], stdout=subprocess.PIPE, text=True, check=True,
        cwd=ROOT, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    return list(map(json.loads, done.stdout.splitlines()))


@pytest.mark.fast_rows
@pytest.mark.parametrize(("options", "attacks"), [(("--quick",), REVIEWED), ((), ATTACKS)])
def test_attacks_are_refused_and_harmless_templates_rendered(options, attacks):
    found = {one["template"]: one for one in outcomes(*options)}
    assert not {jinja: one for jinja in attacks if "refused" not in (one := found[jinja])}
    assert {jinja: found[jinja].get("text") for jinja in HARMLESS} == HARMLESS


EARLIER = (
    "{% for m in messages %}{% set ns = namespace(role='', is_done=false) %}{% for i in range(loop.index0, -1, -1) %}"
    "{% if ns.is_done %}{% elif messages[i].role != 'tool' %}{% set ns.role = messages[i].role %}"
    "{% set ns.is_done = true %}{% else %}" + "{{ messages[i].content.strip().split('x')[0] }}" * 6
    + "{% endif %}{% endfor %}{{ ns.role[0] }}{{ m.content }}{% endfor %}"
)  # fmt: skip
"""As in published templates, which look for the role, the call or the name of a tool in all other messages."""


def test_long_conversations_are_rendered_by_templates_that_compare_all_messages():
    messages = [{"role": ("user", "assistant")[number % 2], "content": str(number)} for number in range(900)]
    template = ChatTemplate(replace(PLAIN, chat_template=EARLIER))
    assert template.text(messages) == "".join(f"{one['role'][0]}{one['content']}" for one in messages)


@pytest.mark.parametrize("more", [
    "(ns.x" + ", 'a'.strip" * 99 + ")", "[ns.x, range(999)|list]", "[ns.x, l|map(attribute='strip')|list]",
    "[ns.x, ('é€' * 999)|list]", "[ns.x, ('bbab' * 999).split('a')]", "[ns.x, d.items()|list]", "[ns.x, d|items]",
    "[ns.x, d|dictsort]", "[ns.x, namespace(a=1)]", "[ns.x, {}, [], ()]", "[ns.x, dict(a=1)]",
])  # fmt: skip
def test_values_that_a_template_keeps_take_no_more_memory_than_it_pays(more, monkeypatch):
    monkeypatch.setattr(sandbox, "MOST_BYTES", 2**19)
    jinja = (
        "{% set ns = namespace(x=1) %}{% set l = ['ab'] * 999 %}"
        f"{{% set d = {{{','.join(f'{n}: {n}' for n in range(99))}}} %}}"
        f"{{% for i in range(99999) %}}{{% set ns.x = {more} %}}{{% endfor %}}"
    )
    template = ChatTemplate(replace(PLAIN, chat_template=jinja))
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError, match="too large"):
            template.text([])
        assert tracemalloc.get_traced_memory()[1] < 3 * 2**19
    finally:
        tracemalloc.stop()

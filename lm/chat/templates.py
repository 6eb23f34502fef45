"""Chat templates for models that have none, and what they need of a vocabulary."""

import dataclasses
from typing import NamedTuple

from lm.chat.template import ChatTemplate
from lm.config.tokenizer import CHAT_TOKENS
from lm.errors import UsageError
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.encoding import BytePairTokenizer


class Named(NamedTuple):
    """A template that a vocabulary can get."""

    jinja: str
    tokens: tuple[str, ...]
    """Special tokens that it writes."""
    end: str
    """The one that ends a reply."""


GRISTMILL = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == "assistant" %}
{{- "<|assistant|>" }}
{%- generation %}
{%- if message.content %}
{{- " " + message.content }}
{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- "<|call|>" + call.function.name + " " + call.function.arguments | tojson }}
{%- endfor %}
{{- "<|end|>" }}
{%- endgeneration %}
{%- else %}
{{- "<|" + message.role + "|> " + message.content + "<|end|>" }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- "<|assistant|>" }}
{%- endif %}
"""
"""A call is <|call|>NAME {"argument": ...}; the result of a tool is between <|tool|> and <|end|>. The model knows its
tools by training. Texts begin after a space, so that a word is the same token at the beginning of a text as within one,
and a small model can copy it."""
SYSTEM = """\
{%- set ns = namespace(text="") %}
{%- if messages[0].role == "system" %}
{%- set ns.text = messages[0].content %}
{%- endif %}
{%- if tools %}
{%- set ns.text = (ns.text + "\\n\\nFunctions that you can call, each by " + EXAMPLE + ":") | trim %}
{%- for tool in tools %}
{%- set ns.text = ns.text + "\\n" + tool | tojson %}
{%- endfor %}
{%- endif %}
"""
CHATML = (
    '{%- set EXAMPLE = \'<tool_call>{"name": NAME, "arguments": {...}}</tool_call>\' %}\n'
    + SYSTEM
    + """\
{%- if ns.text %}
{{- "<|im_start|>system\\n" + ns.text + "<|im_end|>\\n" }}
{%- endif %}
{%- for message in messages if message.role != "system" %}
{{- "<|im_start|>" + message.role + "\\n" }}
{%- if message.role == "assistant" %}
{%- generation %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>{"name": ' + call.function.name | tojson + ', "arguments": ' + call.function.arguments | tojson + "}" }}
{{- "</tool_call>" }}
{%- endfor %}
{{- "<|im_end|>" }}
{%- endgeneration %}
{{- "\\n" }}
{%- else %}
{{- message.content + "<|im_end|>\\n" }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- "<|im_start|>assistant\\n" }}
{%- endif %}
"""
)
LLAMA3 = (
    '{%- set EXAMPLE = \'{"name": NAME, "parameters": {...}}\' %}\n{{- bos_token }}\n'
    + SYSTEM
    + """\
{%- if ns.text %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" + ns.text + "<|eot_id|>" }}
{%- endif %}
{%- for message in messages if message.role != "system" %}
{%- set role = "ipython" if message.role == "tool" else message.role %}
{{- "<|start_header_id|>" + role + "<|end_header_id|>\\n\\n" }}
{%- if message.role == "assistant" %}
{%- generation %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}
{{- '{"name": ' + call.function.name | tojson + ', "parameters": ' + call.function.arguments | tojson + "}" }}
{%- endfor %}
{{- "<|eot_id|>" }}
{%- endgeneration %}
{%- else %}
{{- message.content + "<|eot_id|>" }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}
{%- endif %}
"""
)
TEMPLATES = {
    "gristmill": Named(GRISTMILL, CHAT_TOKENS, "<|end|>"),
    "chatml": Named(CHATML, ("<|im_start|>", "<|im_end|>"), "<|im_end|>"),
    "llama3": Named(LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>"),
}


def with_template(tokenizer: Tokenizer, name: str) -> Tokenizer:
    """Return the tokenizer with a chat template that it can encode: its own if `name` is "", or the first of TEMPLATES
    whose special tokens it has, or else gristmill. Missing special tokens get the ids after the vocabulary.

    Raises UsageError if the vocabulary can get no more special tokens, and TemplateError for an invalid template.
    """
    if not name and tokenizer.chat_template:
        ChatTemplate(tokenizer)
        return tokenizer
    has = lambda one: set(one.tokens) <= set(tokenizer.special_tokens)
    chosen = TEMPLATES[name or next((key for key, one in TEMPLATES.items() if has(one)), "gristmill")]
    missing = [token for token in chosen.tokens if token not in tokenizer.special_tokens]
    if missing and not isinstance(tokenizer, BytePairTokenizer):
        raise UsageError(
            f"The tokenizer, of the kind {tokenizer.kind}, lacks the special tokens {', '.join(missing)} of the chat "
            "template, and only a byte-level BPE can get more. Choose a chat.template whose tokens it has."
        )
    special = {**tokenizer.special_tokens, **{token: tokenizer.vocab_size + i for i, token in enumerate(missing)}}
    stops = tuple(dict.fromkeys([special[chosen.end], *sorted(tokenizer.eos_ids)]))
    return dataclasses.replace(tokenizer, special_tokens=special, chat_template=chosen.jinja, stop_ids=stops)

"""Chat templates compared with transformers: text, token ids, and the mask of what the assistant writes.

    python -m tests.bench.templates [--conversations 1000]

Conversations are random: system messages, calls of tools, markup of Jinja and HTML, blanks, other scripts. Prints a row
for each template: how many of them differ. The peer is $PEERS_DIR/torch/bin/python, with transformers 5.
"""

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.chat.messages import Message, check_messages
from lm.chat.template import ChatTemplate
from lm.chat.templates import TEMPLATES, with_template
from lm.config import TokenizerConfig
from lm.tokenizer import save, train_tokenizer
from tests.bench.runner import PEERS, REPOSITORY, SkippedError, ask_peer, run_benchmark

WORDS = "the Fox 42 3.14 héllo 你好 \n\n  two\t <b> & \"q\" 'x' {{ }} {% if %} \\n end. ! [INST] 😀".split(" ")  # noqa: SIM905
TOOLS: list[Message] = [
    {"type": "function", "function": {"name": "f0", "description": "é <x>", "parameters": {
        "type": "object", "properties": {"a": {"type": "string"}}}}},
]  # fmt: skip
PEER = """
import json, sys, transformers
folder, rows = sys.argv[1], json.load(open(sys.argv[2], encoding="utf-8"))
found = json.load(open(sys.argv[3], encoding="utf-8"))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=folder + "/tokenizer.json", bos_token=found["bos"])
tokenizer.chat_template = found["template"]
differ = {"text": 0, "ids": 0, "mask": 0}
for row in rows:
    given = (row["messages"], row["tools"] or None)
    text = tokenizer.apply_chat_template(*given, tokenize=False, add_generation_prompt=row["reply"])
    encoded = tokenizer.apply_chat_template(*given, return_dict=True, return_assistant_tokens_mask=True)
    theirs = {"text": text, "ids": list(encoded["input_ids"]), "mask": list(encoded["assistant_masks"])}
    for name, value in theirs.items():
        differ[name] += value != row[name]
print(json.dumps({f"{name}_differs": count for name, count in differ.items()} | {"peer": "transformers "
                 + transformers.__version__}))
"""


def conversation(chance: random.Random) -> list[Message]:
    text = lambda: " ".join(chance.choices(WORDS, k=chance.randint(0, 12)))
    function = lambda number: {"name": f"f{number}", "arguments": {"a": text(), "n": number}}
    messages: list[Message] = [{"role": "system", "content": text()}] if chance.random() < 0.4 else []
    for _ in range(chance.randint(1, 4)):
        messages.append({"role": "user", "content": text()})
        if chance.random() < 0.3:
            calls = [{"type": "function", "function": function(number)} for number in range(chance.randint(1, 2))]
            content = text() if chance.random() < 0.3 else ""
            messages += [{"role": "assistant", "content": content, "tool_calls": calls}]
            messages += [{"role": "tool", "content": text()}]
        if chance.random() < 0.9:
            messages.append({"role": "assistant", "content": text() or "ok"})
    return check_messages(messages)


def main(conversations: int = 1000) -> Iterator[dict[str, Any]]:
    python = PEERS / "torch/bin/python"
    if not python.exists():
        raise SkippedError(f"{python} is missing: a Python with torch and transformers 5")
    words = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    base = train_tokenizer([words], TokenizerConfig(vocab_size=512, split_pattern="gpt2", train_characters=1_000_000))
    chance = random.Random(7)
    for name in TEMPLATES:
        template = ChatTemplate(with_template(base, name))
        rows = []
        for _ in range(conversations):
            messages, tools = conversation(chance), TOOLS if chance.random() < 0.3 else []
            reply, encoded = chance.random() < 0.5, template.encode(messages, tools)
            rows.append({
                "messages": messages, "tools": tools, "reply": reply, "text": template.text(messages, tools, reply),
                "ids": encoded.ids.tolist(), "mask": encoded.trained.astype(int).tolist(),
            })  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            save(template.tokenizer, Path(folder))
            given, about = Path(folder, "rows.json"), Path(folder, "about.json")
            given.write_text(json.dumps(rows), encoding="utf-8")
            found = {"template": template.tokenizer.chat_template, "bos": template.values["bos_token"]}
            about.write_text(json.dumps(found), encoding="utf-8")
            yield {"template": name, "conversations": len(rows)} | ask_peer(python, PEER, folder, given, about)


if __name__ == "__main__":
    run_benchmark(main)

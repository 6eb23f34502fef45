"""Save and load a tokenizer as a folder: meta.json, and the files of its class."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

from lm.bounded import MOST_CONFIG_BYTES, parse_json, read_bounded
from lm.errors import MALFORMED, InputError, UsageError
from lm.storage import Place, file_inside, write_atomically
from lm.tokenizer.base import Tokenizer

META = "meta.json"
KINDS = {
    "bpe": "lm.tokenizer.encoding.BytePairTokenizer",
    "sentencepiece": "lm.tokenizer.sentencepiece.SentencePieceTokenizer",
    "hugging_face": "lm.tokenizer.hugging_face.library.LibraryTokenizer",
    "characters": "lm.tokenizer.characters.CharacterTokenizer",
}
"""{kind in meta.json: class}, which is imported when needed."""
IMPORTED: dict[str, Any] = {"add_bos": True, "stop_ids": (), "chat_template": ""}
"""Fields of Tokenizer that importing a model sets, with their defaults, which are not written to meta.json."""
REMEDY = "Delete the folder, and run: python -m launch.train_tokenizer CONFIG.py --workdir RUN"


def class_of(kind: str) -> type[Tokenizer]:
    """Import the class for a kind in meta.json, such as "bpe". Raises KeyError for an unknown kind."""
    module, _, name = KINDS[kind].rpartition(".")
    return getattr(importlib.import_module(module), name)


def save(tokenizer: Tokenizer, folder: Place) -> None:
    """Write a tokenizer to `folder`, creating it if necessary. meta.json is written last: without it, load() raises."""
    for name, data in tokenizer.files().items():
        write_atomically(folder / name, data)
    meta = {
        "kind": tokenizer.kind,
        **tokenizer.settings(),
        **{name: getattr(tokenizer, name) for name, own in IMPORTED.items() if getattr(tokenizer, name) != own},
        "vocab_size": tokenizer.vocab_size,
        "documents": tokenizer.documents,
        "characters": tokenizer.characters,
        "fingerprint": tokenizer.fingerprint,
    }
    write_atomically(folder / META, json.dumps(meta, indent=1) + "\n")


def load(folder: Path) -> Tokenizer:
    """Load the tokenizer that save() wrote to `folder`. Raises InputError if a file is missing, malformed or a link out
    of the folder, or if the fingerprint of the contents is not the saved one."""
    try:
        meta = parse_json(read_bounded(file_inside(folder, META), MOST_CONFIG_BYTES))
        tokenizer = class_of(meta["kind"]).from_files(folder, meta)
        imported = IMPORTED | {name: meta[name] for name in IMPORTED if name in meta}
        tokenizer = dataclasses.replace(
            tokenizer, documents=int(meta["documents"]), characters=int(meta["characters"]),
            add_bos=bool(imported["add_bos"]), stop_ids=tuple(map(int, imported["stop_ids"])),
            chat_template=str(imported["chat_template"]),
        )  # fmt: skip
        stored, found = meta["fingerprint"], tokenizer.fingerprint
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise InputError(
            f"There is no tokenizer in {folder}: {missing} is missing. Run: python -m launch.train_tokenizer"
        ) from None
    except UsageError as error:
        raise InputError(f"The tokenizer in {folder} cannot be loaded: {error} {REMEDY}") from error
    # JSON, UTF-8 and base64 errors are ValueErrors; damage can also cause the others.
    except (OSError, *MALFORMED) as error:
        raise InputError(f"The tokenizer in {folder} is damaged: {type(error).__name__}: {error}. {REMEDY}") from error
    if found != stored:
        raise InputError(
            f"The tokenizer in {folder} has changed since it was saved: its fingerprint is {found}, but {META} says "
            f"{stored}. {REMEDY}"
        )
    return tokenizer

"""Write tokenizer.json, tokenizer_config.json and special_tokens_map.json of a Hugging Face folder, for any tokenizer
class.

As in training, texts begin with the token that begins a document (unless add_bos is false): a model that was only
trained on such texts needs it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.errors import UsageError
from lm.formats.byte_level import supported_sentencepiece
from lm.storage import write_json
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.characters import CharacterTokenizer
from lm.tokenizer.encoding import BytePairTokenizer
from lm.tokenizer.hugging_face.library import FILE, LibraryTokenizer
from lm.tokenizer.hugging_face.reading import heading as named_heading
from lm.tokenizer.hugging_face.writing import bpe_model, hugging_face
from lm.tokenizer.hugging_face.writing import tokenizer_json as library_json
from lm.tokenizer.sentencepiece import BLANK, SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BPE, KINDS


def write_tokenizer(folder: Path, tokenizer: Tokenizer, context_length: int) -> None:
    """Write the files with which transformers' AutoTokenizer gives the same ids, after BOS if tokenizer.add_bos. An
    imported tokenizer.json is copied if it treats BOS in the same way. The chat template is in tokenizer_config.json.
    Raises UsageError for a sentencepiece model whose normalization tokenizer.json cannot express."""
    if isinstance(tokenizer, BytePairTokenizer | LibraryTokenizer):
        start, end = tokenizer.start, tokenizer.end
    else:  # "" for one that is not a special token
        names = tokenizer.special_names
        ends = sorted(tokenizer.eos_ids, key=lambda id: (id == tokenizer.bos_id, id))
        start, end = names.get(tokenizer.bos_id, ""), names.get(ends[0], "") if ends else ""
    heads = lambda contents: named_heading(json.loads(contents).get("post_processor"))
    if isinstance(tokenizer, LibraryTokenizer) and heads(tokenizer.contents) == tokenizer.start * tokenizer.add_bos:
        (folder / FILE).write_bytes(tokenizer.contents)
    else:
        contents = tokenizer_json(tokenizer) | {"post_processor": heading(tokenizer) if tokenizer.add_bos else None}
        text = json.dumps(contents, ensure_ascii=False, indent=1)
        (folder / FILE).write_text(text + "\n", encoding="utf-8", newline="\n")
    named = {name: token for name, token in (("bos_token", start), ("eos_token", end)) if token}
    template = {"chat_template": tokenizer.chat_template} if tokenizer.chat_template else {}
    write_json(folder / "special_tokens_map.json", named)
    write_json(
        folder / "tokenizer_config.json",
        {
            # This class uses tokenizer.json unchanged; those of GPT-2 and Llama would replace steps.
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context_length,
            "clean_up_tokenization_spaces": False, **named, **template,
        },
    )  # fmt: skip


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the contents of a tokenizer.json, without the step that prepends BOS. Raises UsageError if none has the
    same ids."""
    if isinstance(tokenizer, BytePairTokenizer):
        return hugging_face(tokenizer)
    if isinstance(tokenizer, LibraryTokenizer):
        return json.loads(tokenizer.contents)
    if isinstance(tokenizer, SentencePieceTokenizer):
        return sentencepiece_json(tokenizer)
    if isinstance(tokenizer, CharacterTokenizer):  # transformers drops other characters, which this class rejects
        model = bpe_model({symbol: id for id, symbol in enumerate(tokenizer.symbols)}, [])
        return library_json(model, {}, decoder={"type": "Fuse"})
    raise UsageError(f"A {tokenizer.kind} tokenizer has no tokenizer.json.")


def sentencepiece_json(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    """Return the contents of tokenizer.json for a BPE or unigram model with byte fallback. Ids are the same, with two
    exceptions: U+2581 in a text is read as a space, and a unigram model may choose another of two equally likely
    segmentations, as for a run of one letter. Raises UsageError for a model that normalizes or has no byte fallback."""
    remedy = "Export another format."
    found = supported_sentencepiece(tokenizer, "a tokenizer.json", remedy, KINDS, range(1, 7))
    pieces = [(piece.text, piece.score) for piece in found.pieces]
    if found.kind == BPE:
        vocabulary = {piece: id for id, (piece, _) in enumerate(pieces)}
        unknown = pieces[found.unk_id][0]
        # Every pair of pieces whose concatenation is a piece: in order of its score, best first, then of their ids.
        merges = []
        for piece, score in pieces:
            halves = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
            merges += [
                (-score, vocabulary[left], vocabulary[right], left, right)
                for left, right in halves if left in vocabulary and right in vocabulary
            ]  # fmt: skip
        ordered = [[left, right] for *_, left, right in sorted(merges)]
        model = bpe_model(vocabulary, ordered, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    else:
        vocab = [[*one] for one in pieces]
        model = {"type": "Unigram", "unk_id": found.unk_id, "byte_fallback": True, "vocab": vocab}
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    before = [{"type": "Prepend", "prepend": BLANK}] if found.dummy_prefix else []
    decoders = [
        {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}
    ]  # fmt: skip
    return library_json(
        model, tokenizer.special_tokens, normalizer={"type": "Sequence", "normalizers": [*before, blanks]},
        decoder={"type": "Sequence", "decoders": decoders},
    )  # fmt: skip


def heading(tokenizer: Tokenizer) -> Mapping[str, Any]:
    """Return the step of a tokenizer.json that prepends BOS to a text."""
    name, id = tokenizer.token_bytes(tokenizer.bos_id).decode(), tokenizer.bos_id
    head = {"SpecialToken": {"id": name, "type_id": 0}}
    text = lambda which: {"Sequence": {"id": which, "type_id": 0}}
    return {
        "type": "TemplateProcessing", "single": [head, text("A")], "pair": [head, text("A"), text("B")],
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}},
    }  # fmt: skip

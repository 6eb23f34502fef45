"""Load published vocabularies, by name or from their files."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lm.bounded import MOST_CONFIG_BYTES, MOST_TOKENIZER_BYTES, parse_json, read_bounded
from lm.config import END_OF_TEXT
from lm.errors import MALFORMED, InputError, UsageError, network_reason
from lm.storage import fetched, file_inside, place_of, user_cache, write_atomically
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.encoding import HUGGING_FACE, BytePairTokenizer, read_ranks, write_ranks
from lm.tokenizer.files import META, load
from lm.tokenizer.patterns import SPLIT_PATTERNS

MODEL = "tokenizer.model"
CONFIG = "tokenizer_config.json"
SERVER = "https://openaipublic.blob.core.windows.net/encodings"
"""OpenAI's server of vocabularies in tiktoken's format (openai/tiktoken: tiktoken_ext/openai_public.py)."""
CONNECT_SECONDS, READ_SECONDS = 30.0, 60.0
_RANKS = re.compile(rb"[A-Za-z0-9+/]+=* 0\r?\n")


@dataclass(frozen=True)
class Published:
    """A published byte-level BPE, except for its tokens, which are in a file in tiktoken's format with this SHA-256."""

    pattern: str
    special_tokens: Mapping[str, int]
    """{name: id}."""
    start: str
    end: str
    file: str
    """File name on the server and in the user's cache."""
    sha256: str
    gated: str = ""
    """How to get the file if its download needs permission; "" if it does not."""

    def tokenizer(self, ranks: bytes) -> BytePairTokenizer:
        """Return the tokenizer, given the contents of the file. Raises ValueError if they are damaged."""
        special = dict(self.special_tokens)
        return BytePairTokenizer(self.pattern, read_ranks(ranks), self.start, self.end, special_tokens=special)


# From meta-llama/llama3: llama/tokenizer.py. Llama 3.1 and later rename a few of these.
_LLAMA3_SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(4)),
    "<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>",
    *(f"<|reserved_special_token_{i}|>" for i in range(5, 251)),
)  # fmt: skip

# OpenAI's special tokens and SHA-256 are from tiktoken_ext/openai_public.py; the SHA-256 of Llama 3's file is
# that of original/tokenizer.model in Meta-Llama-3-8B and Llama-3.1-8B on Hugging Face (the same file).
PUBLISHED = {
    "gpt2": Published(  # the tokens of GPT-2's vocab.bpe, in one file
        SPLIT_PATTERNS["gpt2"], {END_OF_TEXT: 50256}, END_OF_TEXT, END_OF_TEXT, "r50k_base.tiktoken",
        "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    ),
    "cl100k": Published(
        SPLIT_PATTERNS["cl100k"],
        {END_OF_TEXT: 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260,
         "<|endofprompt|>": 100276},
        END_OF_TEXT, END_OF_TEXT, "cl100k_base.tiktoken",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k": Published(
        SPLIT_PATTERNS["o200k"], {END_OF_TEXT: 199999, "<|endofprompt|>": 200018}, END_OF_TEXT, END_OF_TEXT,
        "o200k_base.tiktoken", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "llama3": Published(
        SPLIT_PATTERNS["cl100k"], {name: 128_000 + i for i, name in enumerate(_LLAMA3_SPECIAL)},
        "<|begin_of_text|>", "<|end_of_text|>", "llama3.model",
        "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55",
        gated="original/tokenizer.model of meta-llama/Meta-Llama-3-8B on Hugging Face, which gives access on request",
    ),
}  # fmt: skip


def load_published(name_or_path: str, server: str = SERVER) -> Tokenizer:
    """Load a tokenizer: by a name in PUBLISHED, such as "gpt2", or from a file or folder.

    The file for a name is read from the user's cache (`cached_at`), or else downloaded from `server`. A path is a
    .tiktoken file with one of the PUBLISHED vocabularies, a tokenizer.json, a sentencepiece .model, or a folder: one
    written by lm.tokenizer.files.save, or one with a tokenizer.json or tokenizer.model.

    Raises UsageError for a vocabulary that cannot be reproduced exactly, InputError for a missing or damaged file.
    """
    if name_or_path in PUBLISHED:
        return load_named(name_or_path, server)
    place = place_of(name_or_path)
    path = place if isinstance(place, Path) else fetched(place)
    try:
        return load_folder(path) if path.is_dir() else load_file(path)
    except FileNotFoundError:
        raise UsageError(
            f"tokenizer.load is {name_or_path!r}, which is neither a file or folder nor one of {', '.join(PUBLISHED)}."
        ) from None
    except UsageError as error:
        raise UsageError(f"{path} cannot be loaded: {error}") from error
    except (OSError, *MALFORMED) as error:
        raise InputError(
            f"The tokenizer in {path} is damaged: {type(error).__name__}: {error}. Download it again, or give another."
        ) from error


def load_file(path: Path) -> Tokenizer:
    """Load a tokenizer file; its contents decide the format. Raises UsageError if the tokenizer is not supported, and
    InputError, ValueError or another error of the format's parser if the file is damaged."""
    data = read_bounded(path, MOST_TOKENIZER_BYTES)
    if data.lstrip()[:1] == b"{":
        return of_json(data)
    if _RANKS.match(data):
        return recognised(data)
    from lm.tokenizer.sentencepiece import SentencePieceTokenizer

    return SentencePieceTokenizer.from_model(data)


def of_json(data: bytes, start: str = "", end: str = "") -> Tokenizer:
    """Load the contents of a tokenizer.json: as BytePairTokenizer if it is a byte-level BPE with the same ids, else by
    Hugging Face's library. `start` and `end` are as in `read_hugging_face`. Raises UsageError if neither is
    possible."""
    from lm.tokenizer.hugging_face.library import LibraryTokenizer
    from lm.tokenizer.hugging_face.reading import read_hugging_face

    try:
        return read_hugging_face(data, start, end)
    except UsageError as refused:
        try:
            return LibraryTokenizer.from_json(data, start, end)
        except UsageError as error:
            raise refused if str(error) == str(refused) else UsageError(f"{refused} {error}") from None


def recognised(ranks: bytes) -> BytePairTokenizer:
    """Load the contents of a .tiktoken file as one of the PUBLISHED tokenizers, by their SHA-256: the file does not
    specify how text is split before merging. Line endings do not matter. Raises UsageError if it is none of them."""
    digest = hashlib.sha256(write_ranks(read_ranks(ranks))).hexdigest()
    for published in PUBLISHED.values():
        if published.sha256 == digest:
            return published.tokenizer(ranks)
    raise UsageError(
        f"this vocabulary (token ranks, SHA-256 {digest}) is none of {', '.join(PUBLISHED)}, and a file of ranks does "
        f"not say how text is split before merging. Give the path of the model's {HUGGING_FACE}, or a folder with "
        f"{META} that this program wrote."
    )


def load_folder(folder: Path) -> Tokenizer:
    """Load a folder written by lm.tokenizer.files.save, a Hugging Face folder, or one with a tokenizer.model. Raises
    UsageError if it has no tokenizer file or an unsupported one, and the errors of `load_file` for a damaged one."""
    if (folder / META).exists():
        return load(folder)
    if (folder / HUGGING_FACE).exists():
        data = read_bounded(file_inside(folder, HUGGING_FACE), MOST_TOKENIZER_BYTES)
        return of_json(data, *names_in(folder, data))
    if (folder / MODEL).exists():
        return load_file(file_inside(folder, MODEL))
    raise UsageError(
        f"the folder has none of {META}, {HUGGING_FACE} and {MODEL}. Give a folder that has one, or the path of a "
        "tokenizer file."
    )


def names_in(folder: Path, tokenizer: bytes) -> tuple[str, str]:
    """Return the names of BOS and EOS of a Hugging Face folder, "" if unknown: from tokenizer_config.json, else by
    their ids in generation_config.json or config.json. `tokenizer` is its tokenizer.json. Raises InputError if one of
    these files has an unexpected structure."""
    files = (CONFIG, "generation_config.json", "config.json")
    read = lambda name: parse_json(read_bounded(file_inside(folder, name), MOST_CONFIG_BYTES))
    try:
        config, *models = (read(name) if (folder / name).exists() else {} for name in files)
        special = {token["id"]: token["content"] for token in parse_json(tokenizer).get("added_tokens") or []}
        found = []
        for kind in ("bos", "eos"):
            token = config.get(f"{kind}_token")
            ids = [one[f"{kind}_token_id"] for one in models if one.get(f"{kind}_token_id") is not None]
            id = ids[0][0] if ids and isinstance(ids[0], list) and ids[0] else ids[0] if ids else None
            found.append(token["content"] if isinstance(token, dict) else token or special.get(id, ""))
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: {', '.join(files)} list special tokens in an unknown form ({error}). Download them again."
        ) from error
    return found[0], found[1]


def cached_at(name: str) -> Path:
    """Return the path in the user's cache of the file of a name in PUBLISHED."""
    return user_cache() / "tokenizers" / PUBLISHED[name].file


def load_named(name: str, server: str) -> BytePairTokenizer:
    """Load the tokenizer of a name in PUBLISHED. Raises InputError if its file is not cached and cannot be
    downloaded."""
    published, place, put = PUBLISHED[name], cached_at(name), f"put it at {cached_at(name)}"
    if place.is_file():
        data = place.read_bytes()
        if (digest := hashlib.sha256(data).hexdigest()) == published.sha256:
            return published.tokenizer(data)
        put += f" (where another file is: its SHA-256 is {digest})"
    if published.gated:
        raise InputError(
            f"The tokens of {name} are not on this machine. Download the file (SHA-256 {published.sha256}) "
            f"{published.gated}, and {put}. Or give the path of the file."
        )
    address = f"{server}/{published.file}"
    data, problem = download(address)
    if not problem and (digest := hashlib.sha256(data).hexdigest()) != published.sha256:
        problem = f"the downloaded file has SHA-256 {digest}"
    if problem:
        raise InputError(
            f"The tokens of {name}, the file {published.file} (SHA-256 {published.sha256}), could not be downloaded "
            f"from {address}: {problem}. Check the network, and whether a proxy is needed (HTTPS_PROXY); or download "
            f"it elsewhere and {put}."
        )
    try:
        write_atomically(place, data)
    except OSError as error:  # the data is right, only the cache failed
        print(f"{name} could not be kept in {place}, and is downloaded again next time: {error}")
    return published.tokenizer(data)


def download(address: str) -> tuple[bytes, str]:
    """Return (the bytes at an HTTP address, "" or an error message)."""
    import requests

    try:
        response = requests.get(address, timeout=(CONNECT_SECONDS, READ_SECONDS))
    except requests.RequestException as error:
        return b"", network_reason(error)
    return response.content, "" if response.ok else f"{response.status_code} {response.reason}"

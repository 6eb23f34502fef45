"""Read the weights of a Hugging Face folder as parameters under our names, each on access, without torch."""

import contextlib
import math
from pathlib import Path

import numpy as np

from lm.bounded import MOST_TOKENIZER_BYTES, parse_json, read_bounded
from lm.config import ModelConfig
from lm.errors import InputError, UsageError, shown
from lm.formats.hugging_face.config import model_config_of
from lm.formats.hugging_face.names import HEAD, NO_WEIGHT, family_of, stored_tensors
from lm.formats.safetensors import Tensor, read_folder, read_json_object
from lm.formats.source import MOST_TEMPLATE, SourceModel, SpecialTokens, check_size, check_symbols
from lm.formats.tensors import FileParameters, Tensors, parameter_shapes, stored_shape
from lm.storage import file_inside
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.encoding import HUGGING_FACE as TOKENIZER
from lm.tokenizer.files import META
from lm.tokenizer.hugging_face.reading import heading
from lm.tokenizer.published import CONFIG as TOKENIZER_CONFIG
from lm.tokenizer.published import load_published

type Arrays = dict[str, np.ndarray]
"""{"blocks.0.attention.query.weight": values, ...}, under the names of lm.model.param_names.named_leaves."""
TEMPLATE = "chat_template.jinja"
KEPT = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", TEMPLATE)
"""Files of the tokenizer, which an export copies unchanged."""


def check_names(folder: Path, tensors: dict[str, Tensor], wanted: Tensors, tied: bool) -> None:
    """Raise InputError unless the checkpoint has exactly the tensors `wanted`. With `tied` embeddings it may also have
    an output projection, if that equals the embeddings."""
    for name in wanted:
        if name not in tensors:
            raise InputError(
                f"{folder} has no tensor {name}, which its config.json asks for. The folder has {len(tensors)}, "
                f"first {min(tensors, default='none')}. Download the config and all weights of one model."
            )
    for name in tensors:
        if name in wanted:
            continue
        (head,), table = HEAD, tensors[next(iter(wanted))]  # the embedding is first in both tables
        if not tied or name != head:
            raise InputError(
                f"{folder} has a tensor {name} of shape {tensors[name].shape}, which the model of its config.json "
                "does not use. Download the config and the weights of the same model."
            )
        if tensors[name].shape != table.shape or not np.array_equal(tensors[name].read(), table.read()):
            raise InputError(
                f"{folder} has {head} {tensors[name].shape} other than {table.name} {table.shape}, but its "
                "config.json ties the two. Set tie_word_embeddings to false in config.json."
            )


def folder_parameters(folder: Path, config: ModelConfig) -> FileParameters:
    """Return the parameters in a Hugging Face folder, in their stored dtype. `config` is that of the folder, from
    `model_config_of`. Raises InputError for a damaged file, and for a tensor that is missing, unexpected, or has
    another shape than the config requires."""
    found = read_folder(folder)
    values = sum(math.prod(tensor.shape) for tensor in found.values())
    check_size(config, folder / "config.json", values, len(found))
    shapes, stored = parameter_shapes(config), stored_tensors(config)
    tensors = {name: tensor for name, tensor in found.items() if not NO_WEIGHT.fullmatch(name)}
    if family_of(config) == "gpt2" and not any(name.startswith("transformer.") for name in tensors):
        # GPT-2 as it was published: saved from the inner module, whose names lack the prefix.
        tensors = {name if name in HEAD else f"transformer.{name}": tensor for name, tensor in tensors.items()}
    check_names(folder, tensors, stored, config.tie_embeddings)
    for name, one in stored.items():
        if tensors[name].shape != (shape := stored_shape(one, shapes)):
            raise InputError(
                f"{tensors[name].file}: {name} has shape {tensors[name].shape}, but the model of its config.json "
                f"needs {shape}. Download the config and the weights of the same model."
            )
    dtypes = {name: tensor.dtype for name, tensor in tensors.items() if name in stored}
    return FileParameters(config, stored, dtypes, lambda name: tensors[name].read())


def open_folder(folder: Path, tokenizer: Tokenizer | None = None) -> SourceModel:
    """Open the model in a Hugging Face folder with `tokenizer`, by default the folder's own. The dtype is bfloat16 if
    all parameters are stored in it, else float32, which represents the stored values exactly.

    Raises the errors of `model_config_of` and `folder_parameters`, InputError for a file that is a link out of the
    folder (lm.storage.file_inside), and UsageError for a tokenizer that cannot be reproduced.
    """
    pickles = [path.name for kind in ("*.bin", "*.pth") for path in sorted(folder.glob(kind))]
    if pickles and not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} has its weights in {pickles[0]}, a pickle, which can run code when it is loaded, so it is "
            "refused. If you trust the file, convert the model with torch and transformers: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OUT, safe_serialization=True)."
        )
    config = model_config_of(folder)
    parameters = folder_parameters(folder, config)
    if {*parameters.dtypes.values()} == {"BF16"}:
        config = model_config_of(folder, "bfloat16")
    special, named = special_tokens_of(folder)
    if tokenizer is None:
        kept = {
            name: read_bounded(file_inside(folder, name), MOST_TOKENIZER_BYTES)
            for name in KEPT
            if (folder / name).is_file()
        }
        if TOKENIZER in kept and not (folder / META).is_file():
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):  # reported by its loader
                symbols = len(parse_json(kept[TOKENIZER])["model"]["vocab"])
                check_symbols(symbols, config, folder / TOKENIZER)
        found, notes = special.on(load_published(str(folder)), named)
    else:
        kept, (found, notes) = {}, special.on(tokenizer)
    return SourceModel(config, found, parameters, parameters.dtypes, kept, notes)


def special_tokens_of(folder: Path) -> tuple[SpecialTokens, bool]:
    """Return (BOS, EOS and chat template in the JSON files of a folder, whether its tokenizer_config.json names BOS).
    Raises InputError for a damaged file, and for ids and templates of another type."""
    files = ("generation_config.json", "config.json", TOKENIZER_CONFIG, TOKENIZER)
    generation, config, tokenizer_config, tokenizer = (
        read_json_object(file_inside(folder, name)) if (folder / name).is_file() else {} for name in files
    )
    first = lambda name: next((one[name] for one in (generation, config) if one.get(name) is not None), None)
    bos, eos = first("bos_token_id"), first("eos_token_id")
    eos = eos if isinstance(eos, list) else [] if eos is None else [eos]
    template = tokenizer_config.get("chat_template") or ""
    if isinstance(template, list):  # several, by name
        template = next((one["template"] for one in template if one.get("name") == "default"), "")
    if (folder / TEMPLATE).is_file():
        path = file_inside(folder, TEMPLATE)
        if path.stat().st_size > 4 * MOST_TEMPLATE:
            raise InputError(
                f"{path} has {path.stat().st_size:,} bytes, which is too large for a chat template. Remove the file."
            )
        try:
            template = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text: {error}. Correct or remove the file.") from error
    if not isinstance(template, str) or not all(type(id) is int for id in (*eos, 0 if bos is None else bos)):
        raise InputError(
            f"{folder}: bos_token_id is {shown(bos)} and must be an integer; eos_token_id is {shown(eos)} and must be "
            f"integers; the chat template is {type(template).__name__} and must be text. Edit {', '.join(files[:3])}."
        )
    add_bos = None
    if tokenizer:
        with contextlib.suppress(UsageError, KeyError, TypeError, IndexError, AttributeError):  # reported by its loader
            add_bos = bool(heading(tokenizer.get("post_processor")))
        if "Llama" in str(tokenizer_config.get("tokenizer_class")):  # transformers' class for Llama uses only this
            add_bos = tokenizer_config.get("add_bos_token", True) is True
    return SpecialTokens(bos, tuple(eos), add_bos, template), bool(tokenizer_config.get("bos_token"))

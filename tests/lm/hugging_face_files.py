"""Hugging Face checkpoints for tests: read from tests/fixtures and written by independent code."""

import json
import shutil

import jax.numpy as jnp
import numpy as np

from lm.formats.hugging_face.config import model_config_of
from lm.formats.hugging_face.reading import folder_parameters
from tests.run_files import REPOSITORY

FIXTURES = REPOSITORY / "tests/fixtures/hugging_face"
FILE, INDEX = "model.safetensors", "model.safetensors.index.json"


def load_hugging_face(folder, dtype="float32"):
    """(config, {our name: values}) of a Hugging Face folder, in `dtype`."""
    config = model_config_of(folder, dtype)
    parameters = folder_parameters(folder, config)
    return config, {name: np.array(parameters[name], jnp.dtype(dtype), order="C") for name in parameters}


def parts(path):
    """({name: entry}, the data's bytes) of a safetensors file."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    header.pop("__metadata__", None)
    return header, raw[end:]


def tensors_of(folder):
    """{name: (dtype, shape, bytes)} of every weight file of a folder."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        header, data = parts(path)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            found[name] = (entry["dtype"], entry["shape"], data[begin:end])
    return found


def write_parts(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_tensors(path, tensors):
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    write_parts(path, header, data)


def write_checkpoint(folder, like, tensors=None, **config):
    """Write the fixture `like` as a single-file checkpoint with other settings (... removes one) or tensors."""
    folder.mkdir(exist_ok=True)
    settings = json.loads((FIXTURES / like / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not ...}))
    write_tensors(folder / FILE, tensors_of(FIXTURES / like) if tensors is None else tensors)
    return folder


def write_shards(folder, like, files):
    """Write the fixture `like` in `files` files with an index."""
    folder.mkdir(exist_ok=True)
    shutil.copy(FIXTURES / like / "config.json", folder)
    tensors = tensors_of(FIXTURES / like)
    homes = {name: f"model-{i % files + 1:05}-of-{files:05}.safetensors" for i, name in enumerate(sorted(tensors))}
    for home in set(homes.values()):
        write_tensors(folder / home, {name: tensors[name] for name in tensors if homes[name] == home})
    write_index(folder, homes)
    return folder, homes


def write_index(folder, homes):
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": homes}))

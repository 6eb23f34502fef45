"""Write adapters (lm/model/lora.py) as peft loads them onto a model of transformers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lm.config import LoraConfig, ModelConfig
from lm.errors import UsageError
from lm.formats.hugging_face.names import family_of, stored_tensors
from lm.formats.safetensors import write_file
from lm.formats.tensors import parameter_shapes
from lm.storage import write_json


def write_adapter(folder: Path, config: ModelConfig, lora: LoraConfig, arrays: Mapping[str, np.ndarray]) -> None:
    """Write adapter_config.json and adapter_model.safetensors. `arrays` has "adapters.blocks.0.mlp.up.a", ...

    GPT-2's query, key and value are one map in transformers: its adapter has the ranks of all three together, and B is
    zero outside of their blocks. Raises UsageError for models that need our own code for transformers.
    """
    if (family := family_of(config)) == "gristmill":
        raise UsageError(
            "--adapter: this model is neither a GPT-2 nor a Llama, so peft has no names for its linear maps. Export it "
            "with the adapters merged, without --adapter."
        )
    shapes, ranks, tensors = parameter_shapes(config), dict[str, int](), dict[str, np.ndarray]()
    for theirs, stored in stored_tensors(config).items():
        inner, outer, column, width = [], [], 0, sum(shapes[ours][-1] for ours in stored.ours)
        for ours in stored.ours:
            name, before = f"adapters.{ours.removesuffix('.weight')}", column
            column += shapes[ours][-1]
            if f"{name}.a" in arrays:
                inner.append(arrays[f"{name}.a"])
                outer.append(np.pad(arrays[f"{name}.b"], ((0, 0), (before, width - column))))
        if inner:
            module = theirs.removesuffix(".weight")
            tensors[f"base_model.model.{module}.lora_A.weight"] = np.concatenate(inner, axis=1).T
            tensors[f"base_model.model.{module}.lora_B.weight"] = np.concatenate(outer, axis=0).T
            ranks[".".join(module.split(".")[-2:])] = lora.rank * len(inner)
    folder.mkdir(parents=True, exist_ok=True)
    described = {name: ("F32", value.shape) for name, value in tensors.items()}
    write_file(folder / "adapter_model.safetensors", described, tensors.__getitem__)
    config_json = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None, "inference_mode": True,
        "r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": 0.0, "bias": "none", "target_modules": sorted(ranks),
        "rank_pattern": ranks, "alpha_pattern": {name: lora.alpha * rank / lora.rank for name, rank in ranks.items()},
        "fan_in_fan_out": family == "gpt2",
    }  # fmt: skip
    write_json(folder / "adapter_config.json", config_json)

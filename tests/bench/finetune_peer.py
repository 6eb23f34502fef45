"""Losses and logits of transformers and peft for tests/bench/finetune.py, run by their Python.

    PYTHON tests/bench/finetune_peer.py MODEL BATCHES.npz SETTINGS_JSON ANSWERS.npz [ADAPTER [TRAINED_ADAPTER]]

Trains the model in MODEL on BATCHES (inputs, targets, segments, weights), or with ADAPTER only that adapter. Then loads
TRAINED_ADAPTER, which was trained by us, onto the untouched model. ANSWERS gets the losses, the logits of the first
batch after training, and those of TRAINED_ADAPTER.
"""

import json
import sys

import numpy as np
import peft  # ty: ignore[import-not-found]
import torch  # ty: ignore[import-not-found]
import transformers  # ty: ignore[import-not-found]


def load(folder, adapter=None, trainable=False):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return peft.PeftModel.from_pretrained(model, adapter, is_trainable=trainable) if adapter else model


def call(model, batch, **more):
    """Call the model with attention within documents, to earlier tokens."""
    segments = batch["segments"]
    seen = (segments[:, :, None] == segments[:, None, :]) & torch.ones(segments.shape[1:] * 2).tril().bool()
    return model(input_ids=batch["inputs"], attention_mask=seen[:, None], use_cache=False, **more)


def main(folder, batches, settings, answers, adapter=None, trained=None):
    settings = json.loads(settings)
    arrays = np.load(batches)
    steps = [{name: torch.tensor(arrays[name][step]) for name in arrays.files} for step in range(len(arrays["inputs"]))]
    model = load(folder, adapter, trainable=True).train()
    parameters = [one for one in model.parameters() if one.requires_grad]
    groups = [
        {"params": [one for one in parameters if one.ndim >= 2], "weight_decay": settings["weight_decay"]},
        {"params": [one for one in parameters if one.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=settings["learning_rate"], betas=(settings["beta1"], settings["beta2"]), eps=settings["epsilon"]
    )
    losses = []
    for batch in steps:
        targets = torch.where(batch["weights"] > 0, batch["targets"], -100).long()
        loss = call(model, batch, labels=targets, shift_labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings["clip_norm"])
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.inference_mode():
        logits = call(model.eval(), steps[0]).logits.numpy()
        loaded = call(load(folder, trained).eval(), steps[0]).logits.numpy()
    np.savez(answers, losses=np.array(losses), logits=logits, loaded=loaded)
    versions = {one.__name__: one.__version__ for one in (torch, transformers, peft)}
    print(json.dumps({"versions": versions, "trained_parameters": sum(one.numel() for one in parameters)}))


if __name__ == "__main__":
    main(*sys.argv[1:])

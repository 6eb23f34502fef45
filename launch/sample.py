"""Samples from the trained model: every prompt at every temperature."""

from pathlib import Path

from configs.experiment import Experiment
from launch import train, train_tokenizer
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.planning.memory import check_inference_memory


def make(experiment: Experiment, workdir: Path, out: Path) -> None:
    import jax

    from lm.checkpoints.reading import restore_model
    from lm.inference.generate import sample_texts
    from lm.storage import write_json
    from lm.terminal import for_terminal
    from lm.tokenizer import load

    config = experiment.sample
    pairs = [(prompt, temperature) for prompt in config.prompts for temperature in config.temperatures]
    prompts, temperatures = [prompt for prompt, _ in pairs], [temperature for _, temperature in pairs]
    check_inference_memory(experiment.model, len(pairs), config.tokens, "the number of sample.prompts")
    model, tokenizer = restore_model(experiment.model, workdir / "checkpoints"), load(workdir / "tokenizer")
    key = jax.random.key(config.seed)
    texts = sample_texts(model, experiment.model, tokenizer, prompts, temperatures, config.tokens, key)
    rows = [{"prompt": p, "temperature": t, "text": text} for (p, t), text in zip(pairs, texts, strict=True)]
    write_json(out / "samples/final.json", {"samples": rows})
    for (prompt, temperature), text in zip(pairs, texts, strict=True):
        print(f"\n--- {prompt!r} at temperature {temperature:g}\n{for_terminal(text)}")
    print()


STAGE = Stage(
    name="sample",
    script="launch.sample",
    after=(train_tokenizer.STAGE, train.STAGE),
    settings=lambda experiment: {"sample": experiment.sample},
    make=make,
    outputs=("samples/final.json",),
)

if __name__ == "__main__":
    run_stage_command(STAGE, "sample")

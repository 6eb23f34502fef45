"""Information about the model for the window's frame: name, steps, size."""

from collections.abc import Iterator

from lm.serving.fields import Fields
from lm.serving.inspections import Inspection
from viewer.window.window_run import WindowRun


def inspections(run: WindowRun) -> list[Inspection]:
    def model(fields: Fields) -> dict[str, object]:
        asked = run.of(fields)
        return {
            "name": asked.name,
            "step": asked.step,
            "steps": asked.steps(),
            "parameters": run.at(fields).parameters,
            "context_length": asked.experiment.model.context_length,
            "vocab_size": asked.tokenizer.vocab_size,
            "bos_id": asked.tokenizer.bos_id,
            "prompt": next(iter(asked.experiment.sample.prompts), ""),
            "chat": bool(asked.tokenizer.chat_template),
        }

    return [Inspection("model", ("step",), model, "name and size of the model, steps of its checkpoints")]


def to_record(run: WindowRun) -> Iterator[tuple[str, dict]]:
    yield "model", {}

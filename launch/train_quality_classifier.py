"""Train the quality classifier on two sets of documents: documents.quality_classifier.training.good and .other.

Writes quality_classifier/ in the run folder; set documents.quality_classifier.model of another run to it.
"""

from pathlib import Path

from configs.experiment import Experiment
from data_prep.config import QualityTrainingConfig
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.run_paths import RunPaths


def training(experiment: Experiment) -> QualityTrainingConfig:
    return experiment.documents.quality_classifier.training


def training_files(experiment: Experiment) -> dict[str, object]:
    """Return {"files of good": [SHA-256 of each file of documents], "files of other": the same for the other set}."""
    from data_prep.quality_classifier.examples import document_sets

    sets = document_sets(training(experiment).good, training(experiment).other)
    return {f"files of {name}": [file.sha256 for file in files] for name, files in sets.items()}


def make(experiment: Experiment, run: Path) -> None:
    from data_prep.quality_classifier.train import train_quality_classifier

    trained = train_quality_classifier(training(experiment), RunPaths(run).quality_classifier)
    for name, counts in trained["documents"].items():
        print(f"quality classifier: {counts['trained']:,} documents of the set {name}, {counts['held_out']:,} held out")
    if trained["held_out"] is None:
        print("quality classifier: a set has no held-out documents, so its accuracy is unknown")
    else:
        print(
            f"quality classifier: held out, balanced accuracy {trained['held_out']['balanced_accuracy']:.4f}, "
            f"area under the ROC curve {trained['held_out']['area_under_curve']:.4f}"
        )


STAGE = Stage(
    name="quality_classifier",
    script="launch.train_quality_classifier",
    after=(),
    settings=lambda experiment: {"training": training(experiment)},
    make=make,
    outputs=(RunPaths.quality_classifier,),
    external_inputs=training_files,
)

if __name__ == "__main__":
    run_stage_command(STAGE, "documents.quality_classifier")

"""The tiny experiment as a config file, for tests that start the launch scripts."""

from configs.experiment import Experiment
from tests.corpus import tiny_experiment


def get_config() -> Experiment:
    return tiny_experiment()

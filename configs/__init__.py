"""One Python file an experiment, each with get_config() -> Experiment."""

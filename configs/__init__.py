"""Experiment configs: one Python file each, with get_config() -> Experiment."""

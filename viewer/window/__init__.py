"""Inspections: what the window asks of a run and its models."""

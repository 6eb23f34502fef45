"""Resilience of long runs: preemption, watchdog, goodput, messages between processes.

May import: lm.config.
"""

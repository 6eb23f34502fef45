"""What keeps a long run alive: preemption, watchdog, goodput, agreement between processes.

May import: lm.config.
"""

"""Slow fault injection: processes are killed, and files and connections damaged."""

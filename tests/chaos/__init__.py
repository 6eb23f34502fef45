"""Slow proofs, one JSON line a row: what is killed, cut and damaged on purpose."""

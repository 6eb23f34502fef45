"""Heuristic quality filters on words and lines, one module per paper."""

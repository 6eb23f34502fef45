"""Is it prose? Heuristics on a document's words and lines, one module a paper."""

"""The window: one page to explore a run, served next to the API and exported by the report."""

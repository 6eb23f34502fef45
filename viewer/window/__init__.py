"""The window: one page in which a run is looked into, served beside the API and exported by the report."""

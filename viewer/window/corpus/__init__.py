"""Data of a run for the window: its documents, read from Parquet files in parts."""

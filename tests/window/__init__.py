"""Tests of the window in a browser."""

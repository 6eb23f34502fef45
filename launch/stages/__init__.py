"""Shared code of the launch scripts: stages, command lines, processes of a cluster.

May import: configs, data_prep, lm, viewer.
"""

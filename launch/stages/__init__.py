"""Shared code of the launch scripts: stages, command lines, processes of a cluster, supervision.

May import: configs, data_prep, lm, viewer.
"""

"""What the scripts share: stages, their command line, processes of a cluster, supervision.

May import: configs, data_prep, lm, viewer.
"""

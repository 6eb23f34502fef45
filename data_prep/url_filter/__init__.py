"""Filter URLs by published blocklists.

May import: data_prep.config, data_prep.package_index, data_prep.urls.
"""

"""Which URLs are banned, by published lists.

May import: data_prep.config, data_prep.packages, data_prep.urls.
"""

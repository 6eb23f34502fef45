"""Which URLs are banned, by published lists.

May import: data_prep.config, data_prep.package_index, data_prep.urls.
"""

"""Fit the trees in data_prep/extract/model.json to pages with labeled main text; report their F1 on other sites.

python -m tests.bench.extract_fit CHECKOUTS
"""

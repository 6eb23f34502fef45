"""Fits the trees in data_prep/extract/model.json to pages whose main text is known; tells their F1 on other sites.

python -m tests.bench.extract_fit CHECKOUTS
"""

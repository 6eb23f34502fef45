"""How model.json comes about: pages whose main text is known, at pinned commits; what of them the trees are fitted to;
the trees themselves; and what they are worth on sites they have not seen.

    python -m data_prep.extract.fit CHECKOUTS
"""

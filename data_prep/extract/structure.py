"""Repetition in a page: blocks with equal paths of names, and records, which are similar elements with one parent.

The cards of a shop, posts of a forum and rows of a list each come from one template, visible in the names of their
elements (record extraction by repeated tags: Liu, Grossman and Zhai 2003, MDR).

Array axes: N blocks, M elements, G groups.
"""

import numpy as np

from data_prep.extract.blocks import CELLS, KIND
from data_prep.extract.page import Page, among, ancestors, nearest, ratio

FEWEST = 3
"""Minimum number of similar elements that count as records."""
NO_RECORDS = CELLS | {KIND["p"]}


def numbered(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (index of each value among the distinct ones, count of each distinct value)."""
    return np.unique(key, return_inverse=True, return_counts=True)[1:]


def paths(page: Page) -> tuple[np.ndarray, np.ndarray]:
    """Return two numberings of the M elements: equal for the same name and parent's name, and for the same
    grandparent's name too."""
    many = len(page.name_M) + 1
    own_M, _ = numbered(page.name_M * many + page.name_M[page.parent])
    deep_M, _ = numbered(own_M * many + page.name_M[page.parent[page.parent]])
    return own_M, deep_M


def of_alike(page: Page) -> dict[str, np.ndarray]:
    """Sums over all blocks of the page whose elements have the same names."""
    number: dict[str, int] = {}
    first_N = np.zeros(page.N, bool)
    for n, text in enumerate(page.blocks.texts):
        first_N[n] = number.setdefault(text, n) == n
    rows = {}
    for label, path_M in zip(("own", "deep"), paths(page), strict=True):
        group_N, count_G = numbered(path_M[page.owner])
        size_G, link_G, prose_G, different_G = (
            np.bincount(group_N, values_N) for values_N in (page.size, page.link, page.prose, first_N)
        )
        rows[f"alike_{label}_blocks"] = count_G[group_N]
        rows[f"alike_{label}_share"] = (size_G / page.all_size)[group_N]
        rows[f"alike_{label}_mean"] = (size_G / count_G)[group_N]
        rows[f"alike_{label}_links"] = (link_G / size_G)[group_N]
        rows[f"alike_{label}_prose"] = (prose_G / page.all_prose)[group_N]
        rows[f"alike_{label}_different"] = (different_G / count_G)[group_N]
    return rows


def of_records(page: Page) -> dict[str, np.ndarray]:
    """Features of the innermost record around each block, and of the record whose group contains the most text: their
    number, size, share of the page, and the position of the block in the record."""
    many = len(page.parent) + 1
    group_M, count_G = numbered(page.parent * many + page.name_M)
    size_M = page.between("size", page.first, page.last)
    link_M, prose_M = (page.between(what, page.first, page.last) for what in ("link", "prose"))
    size_G, link_G, prose_G, blocks_G = (
        np.bincount(group_M, values_M) for values_M in (size_M, link_M, prose_M, page.last - page.first)
    )
    record_M = (count_G[group_M] >= FEWEST) & (size_G[group_M] > 0) & ~among(NO_RECORDS)[page.kind_M]
    record_M[0] = False
    text_M, largest_M = np.where(record_M, size_G[group_M], 0), np.arange(len(page.parent))
    for jump_M in ancestors(page.parent):
        above_M = largest_M[jump_M]
        largest_M = np.where(text_M[above_M] >= text_M[largest_M], above_M, largest_M)
    largest_M = np.where(text_M[largest_M] > 0, largest_M, 0)
    images, rows = np.append(0, page.blocks.images), {}
    for label, found_M in (("record", nearest(record_M, page.parent)), ("largest", largest_M)):
        record_N = found_M[page.owner]
        group_N, within_N = group_M[record_N], record_N > 0
        first_N, last_N = page.first[record_N], page.last[record_N]
        values = {
            "count": count_G[group_N],
            "share": size_G[group_N] / page.all_size,
            "mean": size_G[group_N] / count_G[group_N],
            "links": ratio(link_G[group_N], size_G[group_N]),
            "prose": prose_G[group_N] / page.all_prose,
            "blocks": blocks_G[group_N] / count_G[group_N],
            "place": page.index - first_N,
            "images": images[last_N] - images[first_N],
        }
        rows |= {f"{label}_{name}": np.where(within_N, row, -1) for name, row in values.items()}
    return rows

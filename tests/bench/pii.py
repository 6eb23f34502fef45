"""Recall, precision and speed of replacing personal data in labeled texts.

    python -m tests.bench.pii [TEXTS.json]

Two sets of texts: microsoft/presidio-research (1,500, synthetic, 17 kinds; we support six), and those of pii_texts.py.
An entity is found if it is replaced completely, and touched if a part of it is; a replacement is right if it
overlaps an entity of its kind. Prints one JSON line.

Addresses are counted a second time by units, each on one line: of "12 Oak Lane, Apt. 3\\nTulsa, OK
74103" these are "12 Oak Lane, Apt. 3" and "Tulsa, OK 74103". The reason: of presidio's 598 labeled addresses 230 are
parts of one ("28245", "Suite 501"), and most others combine several countries ("6750 Koskikatu 25 Apt. 864"). So:

1. Labels with only marks and white space between them are one address.
2. It is split at commas and line ends. A piece with a digit ends a unit; pieces without a digit before it belong to it
   (town and state to their postcode). A piece that names a flat or a suite, or is a bare number, joins the unit before.
3. Pieces without a digit at the end, such as a country, are in no unit. An address without any digit is one unit.
4. A unit is found if each of its letters and digits is replaced; `units_recall` is the share of units found.
"""

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from configs.recipes.gristmill import PERSONAL_DATA
from data_prep.config import PersonalDataConfig
from data_prep.pii import FINDERS, replace_personal_data
from tests.bench.pii_texts import labelled_texts
from tests.bench.runner import SHARED, run_benchmark

LABELLED = SHARED / "pii/synth_dataset_v2.json"
KINDS = {
    "EMAIL_ADDRESS": "email",
    "IBAN_CODE": "iban",
    "CREDIT_CARD": "payment_card",
    "IP_ADDRESS": "ip",
    "STREET_ADDRESS": "address",
    "PHONE_NUMBER": "phone",
}
MADE = 3000
"""Number of texts of pii_texts.py that are scored."""
BETWEEN_LABELS = re.compile(r"[^\w]{0,8}")
BETWEEN_PIECES = re.compile(r"[^\w#(]*[,\n][^\w#(]*")
OF_THE_UNIT_BEFORE = re.compile(
    r"(?i)(?:(?:apt|apto|apartment|suite|ste|unit|flat|floor|room)\b\.?|#) ?[\w-]+|[\d\W]+[a-z]?|\d+th floor|\d+\. tv"
)


def find_all(text: str, config: PersonalDataConfig) -> list[tuple[str, int, int]]:
    """Kind, start and end in the original text of every replacement."""
    found, covers = [], list(text)
    for kind, finder in FINDERS.items():
        spans = list(finder("".join(covers), config))
        for start, stop in spans:
            covers[start:stop] = "\ufdd0" * (stop - start)
        found += [(kind, *span) for span in spans]
    return found


def units_of(text: str, addresses: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Start and end of the units of the labeled addresses, as defined in the module docstring."""
    joined: list[list[int]] = []
    for start, stop in sorted(addresses):
        if joined and BETWEEN_LABELS.fullmatch(text, joined[-1][1], start):
            joined[-1][1] = max(stop, joined[-1][1])
        else:
            joined.append([start, stop])
    units = []
    for start, stop in joined:
        ends = [m.span() for m in BETWEEN_PIECES.finditer(text, start, stop)]
        pieces = zip([start, *(b for _, b in ends)], [*(a for a, _ in ends), stop], strict=True)
        own: list[tuple[int, int]] = []
        begun = None
        for a, b in pieces:
            piece = text[a:b]
            if own and begun is None and OF_THE_UNIT_BEFORE.fullmatch(piece):
                own[-1] = own[-1][0], b
            elif re.search(r"\d", piece) and (begun is not None or re.search(r"[^\W\d_]", piece)):
                own.append((a if begun is None else begun, b))
                begun = None
            elif begun is None:
                begun = a
        units += own or [(start, stop)]
    return units


def is_covered(text: str, unit: tuple[int, int], found: list[tuple[str, int, int]]) -> bool:
    """Whether all letters and digits of the unit are in replaced addresses."""
    places = {place for kind, a, b in found if kind == "address" for place in range(a, b)}
    return all(place in places for place in range(*unit) if text[place].isalnum())


def score(texts: list[dict], config: PersonalDataConfig) -> dict[str, dict[str, float]]:
    """Recall, touched share and precision by kind, with the counts."""
    counts: dict[str, dict[str, int]] = {kind: defaultdict(int) for kind in FINDERS}
    for text in texts:
        labelled = [
            (KINDS[span["entity_type"]], span["start_position"], span["end_position"])
            for span in text["spans"]
            if span["entity_type"] in KINDS
        ]
        found = find_all(text["full_text"], config)
        for kind, start, stop in labelled:
            counts[kind]["labelled"] += 1
            counts[kind]["whole"] += any(k == kind and a <= start and stop <= b for k, a, b in found)
            counts[kind]["touched"] += any(a < stop and start < b for _, a, b in found)
        for unit in units_of(text["full_text"], [(a, b) for kind, a, b in labelled if kind == "address"]):
            counts["address"]["units"] += 1
            counts["address"]["units_found"] += is_covered(text["full_text"], unit, found)
        for kind, start, stop in found:
            counts[kind]["found"] += 1
            counts[kind]["right"] += any(k == kind and a < stop and start < b for k, a, b in labelled)
    scores = {
        kind: {
            "labelled": n["labelled"],
            "recall": round(n["whole"] / max(1, n["labelled"]), 3),
            "touched": round(n["touched"] / max(1, n["labelled"]), 3),
            "found": n["found"],
            "precision": round(n["right"] / max(1, n["found"]), 3),
        }
        for kind, n in counts.items()
        if n["labelled"] or n["found"]
    }
    if n := counts["address"]["units"]:
        scores["address"] |= {"units": n, "units_recall": round(counts["address"]["units_found"] / n, 3)}
    return scores


def main(texts: tyro.conf.Positional[Path] = LABELLED) -> Iterator[dict[str, Any]]:
    made = {half: labelled_texts(half, MADE) for half in ("tune", "report")}
    row: dict[str, Any] = {"made": {half: score(found, PERSONAL_DATA) for half, found in made.items()}}
    labelled = made["report"]
    if texts.is_file():
        labelled = json.loads(texts.read_text(encoding="utf-8"))
        row |= {"texts": len(labelled), "kinds": score(labelled, PERSONAL_DATA)}
    else:
        row["missing"] = str(texts)
    page = "\n".join(text["full_text"] for text in labelled[:40])[:5000]
    for name, documents in (("documents", [text["full_text"] for text in labelled]), ("pages_of_5_kB", [page] * 200)):
        start = time.process_time()
        for document in documents:
            replace_personal_data(document, PERSONAL_DATA)
        row[f"{name}_per_second"] = round(len(documents) / (time.process_time() - start))
    yield row


if __name__ == "__main__":
    run_benchmark(main)

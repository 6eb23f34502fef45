"""How much of the personal data in labelled texts is found, how much of what is found is right, and how fast.

    python -m tests.bench.pii [TEXTS.json]

The texts are those of microsoft/presidio-research (1,500, synthetic, 17 kinds; six of them are ours). An entity is
found if it is replaced whole, and touched if a part of it is; a replacement is right if it lies on an entity of its
kind. Prints one JSON line.

Of the 598 labelled addresses 230 are parts of one ("28245", "Suite 501"), and most others are put together of several
countries ("6750 Koskikatu 25 Apt. 864"): pyap2 0.2.20 finds .007 whole and touches .064, with a precision of .72.
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

from configs.fineweb_recipe import PERSONAL_DATA
from data_prep.config import PersonalDataConfig
from data_prep.pii import FINDERS, replace_personal_data

LABELLED = Path(__file__).parents[2] / "../shared/data/pii/synth_dataset_v2.json"
KINDS = {
    "EMAIL_ADDRESS": "email",
    "IBAN_CODE": "iban",
    "CREDIT_CARD": "payment_card",
    "IP_ADDRESS": "ip",
    "STREET_ADDRESS": "address",
    "PHONE_NUMBER": "phone",
}


def find_all(text: str, config: PersonalDataConfig) -> list[tuple[str, int, int]]:
    """Kind, start and end of all that is replaced, in the text as it was."""
    found, covers = [], list(text)
    for kind, finder in FINDERS.items():
        spans = list(finder("".join(covers), config))
        for start, stop in spans:
            covers[start:stop] = "\ufdd0" * (stop - start)
        found += [(kind, *span) for span in spans]
    return found


def score(texts: list[dict], config: PersonalDataConfig) -> dict[str, dict[str, float]]:
    """Recall, the share that is touched, and precision, kind by kind, with the numbers behind them."""
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
        for kind, start, stop in found:
            counts[kind]["found"] += 1
            counts[kind]["right"] += any(k == kind and a < stop and start < b for k, a, b in labelled)
    return {
        kind: {
            "labelled": n["labelled"],
            "recall": round(n["whole"] / max(1, n["labelled"]), 3),
            "touched": round(n["touched"] / max(1, n["labelled"]), 3),
            "found": n["found"],
            "precision": round(n["right"] / max(1, n["found"]), 3),
        }
        for kind, n in counts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, nargs="?", default=LABELLED)
    path = parser.parse_args().texts
    if not path.is_file():
        print(json.dumps({"bench": "pii", "missing": str(path)}))
        return
    texts = json.loads(path.read_text(encoding="utf-8"))
    scores = score(texts, PERSONAL_DATA)
    page = "\n".join(text["full_text"] for text in texts[:40])[:5000]
    row: dict = {"bench": "pii", "texts": len(texts), "kinds": scores}
    for name, documents in (("documents", [text["full_text"] for text in texts]), ("pages_of_5_kB", [page] * 200)):
        start = time.process_time()
        for document in documents:
            replace_personal_data(document, PERSONAL_DATA)
        row[f"{name}_per_second"] = round(len(documents) / (time.process_time() - start))
    print(json.dumps(row))


if __name__ == "__main__":
    main()

"""Verdicts and words of datatrove with FineWeb-2's thresholds, run by datatrove's Python.

    PYTHON tests/bench/languages_peer.py CONFIGS < TEXTS.jsonl > DECISIONS.jsonl

An input line is {"label": "deu_Latn", "text"}; an output line is {"reasons": {filter: reason, "" if kept}, "words":
count}. CONFIGS is configs/ of huggingface/fineweb-2. Filters are called as in fineweb-2-pipeline.py.
"""

import functools
import json
import sys
from pathlib import Path


def main() -> None:
    import yaml
    from datatrove.data import Document  # ty: ignore[import-not-found]
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter  # ty: ignore[import-not-found]
    from datatrove.utils.text import split_into_words  # ty: ignore[import-not-found]

    @functools.cache
    def filters_of(label: str):
        values = yaml.safe_load((Path(sys.argv[1]) / f"{label}.yml").read_bytes())
        repetition = ("dup_line_frac", "top_n_grams", "dup_n_grams")
        quality = ("max_avg_word_length", "min_avg_word_length", "max_non_alpha_words_ratio")
        return {
            "gopher_repetition": GopherRepetitionFilter(
                language=label, dup_para_frac=0, dup_line_char_frac=0, dup_para_char_frac=0,
                **{name: values[name] for name in repetition},
            ),
            "fineweb": FineWebQualityFilter(
                language=label, short_line_thr=999, char_duplicates_ratio=0.1, line_punct_thr=values["line_punct_thr"],
                new_line_ratio=values["new_line_ratio"],
            ),
            "gopher_quality": GopherQualityFilter(
                language=label, stop_words=values["stopwords"], min_stop_words=2,
                **{name: values[name] for name in quality},
            ),
        }  # fmt: skip

    for line in sys.stdin:
        row = json.loads(line)
        document, reasons = Document(text=row["text"], id=""), {}
        for name, one in filters_of(row["label"]).items():
            found = one.filter(document)
            reasons[name] = "" if found is True else found[1]
        print(json.dumps({"reasons": reasons, "words": len(split_into_words(row["text"], row["label"]))}), flush=True)


if __name__ == "__main__":
    main()

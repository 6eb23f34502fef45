"""One-sentence explanations of stages, signals and reasons, for readers who do not know them.

Filters are explained by their classes (data_prep/config/filters.py); this module covers the other stages.
"""

from data_prep.config.filters import KNOWN, find_signal

STAGES = {
    "read": ("Reading", "Records that could not be read, or whose checksum does not match."),
    "url_filter": ("URL filter", "Pages on a list of banned sites, or with banned words in their URL."),
    "extract": ("Text extraction", "Pages from whose HTML no main text could be extracted."),
    "url_dedup": ("URL deduplication", "Documents with the same URL as a kept one."),
    "exact_dedup": ("Exact deduplication", "Documents with the same text as a kept one."),
    "minhash_dedup": ("Near-duplicates", "Documents that share most of their wording with a kept one (MinHash)."),
    "line_dedup": ("Repeated lines", "Documents that consist mostly of lines of earlier documents."),
    "substring_dedup": ("Repeated passages", "Documents that consist mostly of passages of earlier documents."),
    "decontamination": ("Decontamination", "Documents that contain text of an evaluation set."),
}
"""{stage that is not a filter: (name, explanation)}."""


def stage_words(stage: str) -> tuple[str, str]:
    """Return (name, explanation) of a stage that drops documents, such as "url_filter"; (stage, "") if unknown."""
    if stage in KNOWN:
        return KNOWN[stage].title, KNOWN[stage].summary
    return STAGES.get(stage, (stage, ""))


def signal_words(signal: str) -> tuple[str, str]:
    """Return (name, explanation) of a quality signal, a value that filters measure; (signal, "") if it is unknown."""
    known = find_signal(signal)
    return (known.title, known.sentence) if known else (signal, "")


def reason_sentence(stage: str, reason: str) -> str:
    """Explain in a sentence why documents were dropped, for reasons without a threshold, such as "no_text" of the stage
    "extract". Default: the explanation of the stage."""
    if stage in KNOWN:
        own = {rule.reason: rule.sentence for rule in KNOWN[stage].rules} | dict(KNOWN[stage].other_reasons)
    else:
        own = REASONS
    return own.get(reason) or stage_words(stage)[1]


REASONS = {
    "banned_domain": "The site is on a list of banned domains.",
    "banned_url": "The page is on a list of banned URLs.",
    "banned_word": "The URL contains a banned word.",
    "soft_banned_words": "The URL contains several words that are suspicious together.",
    "banned_substring": "The URL contains a banned string.",
    "html_too_large": "The page exceeds the size limit for HTML.",
    "text_too_large": "The text exceeds the size limit for texts.",
    "html_too_deep": "The page's elements are nested too deeply.",
    "unreadable_html": "The HTML cannot be parsed.",
    "xhtml": "The page is XHTML, which the recipe excludes.",
    "no_text": "The page has no text except navigation.",
    "url_seen_before": "The URL is in the index of an earlier run.",
    "exact_seen_before": "The text is in the index of an earlier run.",
    "near_seen_before": "A near-duplicate is in the index of an earlier run.",
    "url_duplicate": "Another document with the same URL was kept.",
    "exact_duplicate": "Another document with the same text was kept.",
    "near_duplicate": "A near-duplicate was kept.",
    "repeated_lines": "Too many of its lines are in earlier documents.",
    "short_after_line_dedup": "Too few words remain without lines of earlier documents.",
    "repeated_substrings": "Too much of it is passages of earlier documents.",
    "short_after_substring_dedup": "Too few words remain without passages of earlier documents.",
    "contaminated": "Contains an n-gram of an evaluation set; see dropped/_decontamination.jsonl.",
}
"""{reason of a stage that is not a filter: explanation}."""

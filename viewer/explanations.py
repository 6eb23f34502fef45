"""One-sentence explanations of stages, signals and reasons, for readers who do not know them.

Filters are explained by their classes (data_prep/config/filters.py); this module covers the other stages.
"""

from data_prep.config.filters import KNOWN, find_signal

STAGES = {
    "read": ("Reading", "Records of the input that could not be read, or did not match their own checksums."),
    "url_filter": ("URL", "Pages on a list of banned sites, or with banned words in their URL."),
    "extract": ("Text", "Pages out of whose HTML no main text could be taken."),
    "url_dedup": ("Refetched pages", "Documents from the same address as one that stays."),
    "exact_dedup": ("Copies", "Documents with the same text as one that stays."),
    "minhash_dedup": ("Near-duplicates", "Documents that share most of their wording with one that stays."),
    "line_dedup": ("Repeated lines", "Documents most of which are lines that an earlier document has too."),
    "substring_dedup": ("Repeated passages", "Documents most of which are passages that an earlier document has too."),
    "decontamination": ("Evaluation sets", "Documents that hold text of an evaluation set."),
}
"""{stage that is not a filter: (name, explanation)}."""


def stage_words(stage: str) -> tuple[str, str]:
    """(name, explanation) of a stage; an unknown stage has its own name and no explanation."""
    if stage in KNOWN:
        return KNOWN[stage].title, KNOWN[stage].summary
    return STAGES.get(stage, (stage, ""))


def stage_name(stage: str) -> str:
    """Display name of a stage; an unknown stage has its own name."""
    return stage_words(stage)[0]


def signal_words(signal: str) -> tuple[str, str]:
    """(name, explanation) of a signal; an unknown signal has its own name and no explanation."""
    known = find_signal(signal)
    return (known.title, known.sentence) if known else (signal, "")


def reason_sentence(stage: str, reason: str) -> str:
    """Explanation of a reason that no threshold explains; default: the explanation of its stage."""
    if stage in KNOWN:
        own = {rule.reason: rule.sentence for rule in KNOWN[stage].rules} | dict(KNOWN[stage].other_reasons)
    else:
        own = REASONS
    return own.get(reason) or stage_words(stage)[1]


PERSONAL_DATA = {
    "email": "e-mail address",
    "iban": "IBAN",
    "payment_card": "payment card",
    "ip": "IP address",
    "address": "postal address",
    "phone": "phone number",
}
"""{kind of personal data: its name}."""

REASONS = {
    "banned_domain": "The site is on a list of banned domains.",
    "banned_url": "The page is on a list of banned URLs.",
    "banned_word": "A banned word stands in the URL.",
    "soft_banned_words": "Several words stand in the URL that are suspicious together.",
    "banned_substring": "A banned string is part of the URL.",
    "html_too_large": "The page has more bytes than are parsed.",
    "text_too_large": "The text of the crawl has more bytes than are measured.",
    "html_too_deep": "The page's elements are nested deeper than is parsed.",
    "unreadable_html": "What claims to be HTML cannot be parsed.",
    "xhtml": "The page is XHTML, which the recipe leaves out.",
    "no_text": "Nothing was left but navigation.",
    "url_seen_before": "From an address that is in the index of an earlier run.",
    "exact_seen_before": "The same text as a document in the index of an earlier run.",
    "near_seen_before": "Much the same text as a document in the index of an earlier run, or as one that met such.",
    "url_duplicate": "From the same address as another document, which stays.",
    "exact_duplicate": "The same text as another document, which stays.",
    "near_duplicate": "Much the same text as another document, which stays.",
    "repeated_lines": "More of it than may be are lines that an earlier document has too.",
    "short_after_line_dedup": "Too few words are left without the lines that an earlier document has too.",
    "repeated_substrings": "More of it than may be are passages that an earlier document has too.",
    "short_after_substring_dedup": "Too few words are left without the passages that an earlier document has too.",
    "contaminated": "Holds a run of words of an evaluation set; _decontamination.jsonl in dropped/ says which.",
}
"""{reason of a stage that is not a filter: explanation}."""

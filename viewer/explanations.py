"""What filters, signals and reasons are, in a sentence each, for a reader who has never met them."""

STAGES = {
    "read": ("Reading", "Records of the input that could not be read, or did not match their own checksums."),
    "url_filter": ("Address", "Pages on a list of banned sites, or with banned words in their address."),
    "extract": ("Text", "Pages out of whose HTML no main text could be taken."),
    "language": (
        "Language",
        "A classifier of 176 languages (fastText's lid.176, arXiv:1607.01759) names the likeliest.",
    ),
    "gopher_repetition": (
        "Gopher: repetition",
        "Rules made for the model Gopher (Rae et al. 2021, arXiv:2112.11446, table A1). A text that repeats itself is "
        "mostly a menu, a list or the work of a machine, and a model that learns from it repeats itself too.",
    ),
    "gopher_quality": (
        "Gopher: quality",
        "Rules made for the model Gopher (the same paper, appendix A.1.1). They ask whether a text is prose at all: of "
        "a sensible length, made of words, and with the small words that prose needs.",
    ),
    "c4": (
        "C4",
        "Rules made for C4, the corpus of the model T5 (Raffel et al. 2020, arXiv:1910.10683, section 2.2). Lines of "
        "boilerplate are left out first; these rules look at what remains.",
    ),
    "fineweb": (
        "FineWeb",
        "Rules made for the corpus FineWeb (Penedo et al. 2024, arXiv:2406.17557, section 3.6). They find lists, menus "
        "and tables that got past the others.",
    ),
    "model_quality": (
        "Quality model",
        "A trained classifier scores each text by its likeness to texts of a wanted kind (Li et al. 2024, "
        "arXiv:2406.11794, section 4.4). The line lies where the wanted share of the documents is above it.",
    ),
    "exact_dedup": ("Copies", "Documents with the same text as one that stays."),
    "minhash_dedup": ("Near-duplicates", "Documents that share most of their wording with one that stays."),
}
"""{stage: (name, what it is)}."""


def stage_name(stage: str) -> str:
    """A stage as the pages call it; one that is not known by its own name."""
    return STAGES[stage][0] if stage in STAGES else stage


RUNS = {5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten"}
SIGNALS = {
    "language_score": ("Certainty of the language", "The probability of the likeliest language."),
    "duplicate_paragraphs": ("Repeated paragraphs", "Share of paragraphs that stood before in the same document."),
    "duplicate_paragraph_characters": (
        "Text in repeated paragraphs",
        "Characters of paragraphs that stood before, as a share of the text.",
    ),
    "duplicate_lines": ("Repeated lines", "Share of lines that stood before in the same document."),
    "duplicate_line_characters": (
        "Text in repeated lines",
        "Characters of lines that stood before, as a share of the text.",
    ),
    "top_2_gram": (
        "Most frequent pair of words",
        "The characters of all its occurrences, as a share of the text.",
    ),
    "top_3_gram": (
        "Most frequent three words in a row",
        "The characters of all their occurrences, as a share of the text.",
    ),
    "top_4_gram": (
        "Most frequent four words in a row",
        "The characters of all their occurrences, as a share of the text.",
    ),
    **{
        f"duplicate_{number}_grams": (
            f"Repeated runs of {name} words",
            f"Characters in runs of {name} words that stood before, as a share of the text.",
        )
        for number, name in RUNS.items()
    },
    "words": ("Length", "Words of the document; punctuation is not counted."),
    "mean_word_length": ("Mean length of a word", "In characters. English prose has about five."),
    "hashes_per_word": ("Hash signs", "“#” per word or mark. Lists of tags have many."),
    "ellipses_per_word": ("Ellipses", "“…” per word or mark. Teasers that break off have many."),
    "bullet_lines": ("Bulleted lines", "Share of lines that begin with a bullet, “•” or “-”."),
    "ellipsis_lines": ("Lines that break off", "Share of lines that end with an ellipsis, as previews of articles do."),
    "words_with_letter": ("Words with a letter", "Share of words and marks with a letter. Tables of numbers have few."),
    "stop_words": ("Stop words", "How many of a few words that prose can hardly do without occur: the, of, and …"),
    "c4_lorem_ipsum": ("Filler text", "Lines with “lorem ipsum”, which stands where the text is still to come."),
    "c4_curly_brackets": ("Curly brackets", "Lines with “{”, a sign of program code."),
    "c4_sentences": ("Sentences", "Sentences in the lines that remain."),
    "c4_characters": ("What remains", "Characters in the lines that remain, citations taken out."),
    "terminal_punctuation_lines": (
        "Lines that end a sentence",
        "Share of lines that end with a full stop, a question mark or the like. Menus have few.",
    ),
    "short_lines": ("Short lines", "Share of lines with few characters (in FineWeb, at most 30)."),
    "fineweb_duplicate_line_characters": (
        "Text in repeated lines",
        "Characters of lines that stood before, as a share of the text without line breaks.",
    ),
    "newlines_per_word": ("Line breaks", "Line breaks per word or mark. Lists have many."),
    "quality_score": (
        "Likeness to the wanted texts",
        "0: like ordinary web text; 1: like the texts of the wanted kind.",
    ),
}
"""{signal: (name, what it measures)}."""

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
    "banned_url": "The page is on a list of banned addresses.",
    "banned_word": "A banned word stands in the address.",
    "soft_banned_words": "Several words stand in the address that are suspicious together.",
    "banned_substring": "A banned string is part of the address.",
    "html_too_large": "The page has more bytes than are parsed.",
    "html_too_deep": "The page's elements are nested deeper than is parsed.",
    "unreadable_html": "What claims to be HTML cannot be parsed.",
    "no_text": "Nothing was left but navigation.",
    "other_language": "The likeliest language is not among those wanted.",
    "c4_no_lines": "C4's rules on lines left none.",
    "exact_duplicate": "The same text as another document, which stays.",
    "near_duplicate": "Much the same text as another document, which stays.",
}
"""{reason: what it means}, of reasons without a threshold; what is not here is explained by its stage."""

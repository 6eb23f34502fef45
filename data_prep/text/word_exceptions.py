"""Texts between white space (chunks) that the rules would split wrongly: contractions, abbreviations, emoticons.

These are spaCy's exceptions for English (3.8). An exception applies to a whole chunk, or to the rest after marks around
it were split off. An apostrophe may be ' or ’.
"""

CONTRACTIONS = (
    ("i you he she it we they", "'ll 'll|'ve 'd 'd|'ve"),
    ("i you we they", "'ve"),
    ("you we they", "'re"),
    ("he she it", "'s"),
    ("i", "'m 'm|a"),
    ("who what when where why how there that this these those", "'ll 'll|'ve 'd 'd|'ve"),
    ("who what when where why how there that this", "'s"),
    ("who what when where why how there these those", "'re 've"),
    ("ca could do does did had may might must need ought sha should wo would", "n't n't|'ve"),
    ("could might must should would", "'ve"),
    ("ai are is was were have has dare", "n't"),
    ("not", "'ve"),
    ("can", "not"),
    ("gon", "na"),
    ("got", "ta"),
)
"""(words, endings of each): with or without the apostrophe, in lower or title case."""
NO_CONTRACTIONS = frozenset("ill its hell shell shed were well whore".split())  # noqa: SIM905
"""Words that look like a contraction without its apostrophe."""
OTHER_CONTRACTIONS = "let|'s Let|'s y'|all y|all c'm|on C'm|on how|'d|'y How|'d|'y"
WHOLE = """
's 'S ‘s ‘S 'd 're 'll 'em 'nuff 'cause 'Cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout
doin' goin' nothin' nuthin' ol' somethin' lovin' havin' Doin' Goin' Nothin' Nuthin' Ol' Somethin' Lovin' Havin'
and/or w/o '' — \\") <space>
a.m. p.m. e.g. E.g. i.e. I.e. vs. v.s. Mr. Mrs. Ms. Messrs. Dr. Prof. Ph.D. Jr. St. Mt. Gen. Gov. Rep. Rev.
Sen. Adm. Bros. Co. co. Corp. Inc. Ltd.
Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec.
Ak. Ala. Ariz. Ark. Calif. Colo. Conn. Del. Fla. Ga. Ia. Id. Ill. Ind. Kan. Kans. Ky. La. Mass. Md. Mich. Minn. Miss.
Mo. Mont. Neb. Nebr. Nev. Okla. Ore. Pa. Tenn. Va. Wash. Wis.
"""
SMALL_LETTERS = "abcdefghijklmnopqrstuvwxyzäöü"
"""Letters that form one word with a period after them: "a."."""
FACES = (
    (":", "", ") )) ))) ( (( ((( ] } / | P p O o 0 * 3 > X x D 1 () o) ') '( '-) '-("),
    (":", "-", ") )) ))) ( (( ((( ] } / | P p O o 0 * 3 > X x D"),
    (";", "", ") D _;"),
    (";", "-", ") D"),
    ("=", "", ") ( ] [ / | 3 D"),
    ("8", "", ")"),
    ("8", "-", ") D"),
    (">", "", ":o :( .< .>"),
    ("<", "", "3 33 333 /3 .<"),
)
"""Emoticons: eyes, nose, mouths."""
OTHER_FACES = """
(: (-: (= (; (-; (-8 (o: [: [-: [= ): )-: ]= ._. o.O O.o o.o 0.0 (^_^) (-_-) (._.) (>_<) (*_*) (¬_¬) (ಠ_ಠ)
(╯°□°）╯︵┻━┻ ><(((*>
"""


def all_exceptions() -> dict[str, tuple[str, ...]]:
    """Return {chunk of text without white space: its words}, such as {"don't": ("do", "n't")}."""
    found: list[tuple[str, ...]] = []
    for words, ends in CONTRACTIONS:
        for word in words.split():
            for end in ends.split():
                parts = (word, *end.split("|"))
                bare = tuple(part.replace("'", "") for part in parts)
                found += [parts] if "".join(bare) in NO_CONTRACTIONS else [parts, bare]
    found += [(head.title(), *tail) for head, *tail in found]
    found += [tuple(words.split("|")) for words in OTHER_CONTRACTIONS.split()]
    found += [(whole,) for whole in (*WHOLE.split(), *OTHER_FACES.split())]
    found += [(f"{letter}.",) for letter in SMALL_LETTERS]
    found += [(eyes + nose + mouth,) for eyes, nose, mouths in FACES for mouth in mouths.split()]
    found += [(str(hour), half) for hour in range(1, 13) for half in ("am", "pm", "a.m.", "p.m.")]
    found += [("°", scale, ".") for scale in "cfkCFK"]
    typographic = [tuple(part.replace("'", "’") for part in parts) for parts in found]
    return {"".join(parts): parts for parts in (*found, *typographic)}


EXCEPTIONS = all_exceptions()
LONGEST_EXCEPTION = max(map(len, EXCEPTIONS))

"""Config of language identification."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from data_prep.config.filters import Filter, Rule, Signal
from lm.errors import UsageError
from lm.fields import measured, not_hashed, within

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

NAMES = """
af:afr als:gsw am:amh_Ethi an:arg ar:arb_Arab arz:arz_Arab as:asm_Beng ast:ast av:ava_Cyrl az:azj azb:azb_Arab
ba:bak_Cyrl bar:bar bcl:bcl be:bel_Cyrl bg:bul_Cyrl bh:bho_Deva bn:ben_Beng bo:bod_Tibt bpy:bpy_Beng br:bre bs:bos
bxr:bxr_Cyrl ca:cat cbk:cbk ce:che_Cyrl ceb:ceb ckb:ckb_Arab co:cos cs:ces cv:chv_Cyrl cy:cym da:dan de:deu diq:diq
dsb:dsb dty:dty_Deva dv:div_Thaa el:ell_Grek eml:eml en:eng eo:epo es:spa et:ekk eu:eus fa:fas_Arab fi:fin fr:fra
frr:frr fy:fry ga:gle gd:gla gl:glg gn:gug gom:gom_Deva gu:guj_Gujr gv:glv he:heb_Hebr hi:hin_Deva hif:hif hr:hrv
hsb:hsb ht:hat hu:hun hy:hye_Armn ia:ina id:ind ie:ile ilo:ilo io:ido is:isl it:ita ja:jpn_Jpan jbo:jbo jv:jav
ka:kat_Geor kk:kaz_Cyrl km:khm_Khmr kn:kan_Knda ko:kor_Hang krc:krc_Cyrl ku:kmr kv:kpv_Cyrl kw:cor ky:kir_Cyrl la:lat
lb:ltz lez:lez_Cyrl li:lim lmo:lmo lo:lao_Laoo lrc:lrc_Arab lt:lit lv:lvs mai:mai_Deva mg:plt mhr:mhr_Cyrl min:min
mk:mkd_Cyrl ml:mal_Mlym mn:khk_Cyrl mr:mar_Deva mrj:mrj_Cyrl ms:zsm mt:mlt mwl:mwl my:mya_Mymr myv:myv_Cyrl
mzn:mzn_Arab nah:nah nap:nap nds:nds ne:npi_Deva new:new_Deva nl:nld nn:nno no:nob oc:oci or:ory_Orya os:oss_Cyrl
pa:pan_Guru pam:pam pfl:pfl pl:pol pms:pms pnb:pnb_Arab ps:pbt_Arab pt:por qu:quy rm:roh ro:ron ru:rus_Cyrl
rue:rue_Cyrl sa:san_Deva sah:sah_Cyrl sc:srd scn:scn sco:sco sd:snd_Arab sh:hbs si:sin_Sinh sk:slk sl:slv so:som
sq:als sr:srp_Cyrl su:sun sv:swe sw:swh ta:tam_Taml te:tel_Telu tg:tgk_Cyrl th:tha_Thai tk:tuk tl:fil tr:tur
tt:tat_Cyrl tyv:tyv_Cyrl ug:uig_Arab uk:ukr_Cyrl ur:urd_Arab uz:uzn vec:vec vep:vep vi:vie vls:vls vo:vol wa:wln
war:war wuu:wuu_Hani xal:xal_Cyrl xmf:xmf_Geor yi:ydd_Hebr yo:yor yue:yue_Hani zh:cmn_Hani
"""
LABELS: dict[str, tuple[str, str]] = {
    code: (name[:3], name[4:] or "Latn") for code, _, name in (one.partition(":") for one in NAMES.split())
}
"""{lid.176 code: (ISO 639-3 code, ISO 15924 code of its main script)}, as in GlotLID and FineWeb-2. A macrolanguage
maps to its most spoken member, e.g. ar to arb. lid.176 uses ISO 639-1 codes, ISO 639-3 codes of languages without one,
and a few older codes ("als" is Alemannic)."""
LANGUAGES = frozenset(LABELS)
"""All codes of lid.176."""
LABEL = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
"""Language and script, e.g. "deu_Latn"."""


@dataclass(frozen=True)
class LanguageConfig(Filter):
    """Language identification by fastText's lid.176 (arXiv:1607.01759) or by GlotLID (arXiv:2310.16248)."""

    languages: tuple[str, ...]
    """Languages to keep; (): all. Codes of lid.176 ("de"), or language and script ("deu_Latn")."""
    min_score: float
    """The probability of the most likely language must be above this (0 to 1)."""
    letters_only: bool = measured()
    """Classify only letters. Digits and punctuation lower the probability of every language."""
    line_breaks: Literal["blank", "nothing"] = measured(default="blank")
    """Replacement of line breaks, because the model reads one line: a blank, or nothing, which joins two words."""
    check_script: bool = measured(default=True)
    """Override the model if letters of other scripts outnumber Latin ones: choose the most likely of the languages that
    use them (lid.176 only)."""

    detector: Literal["lid.176", "glotlid"] = measured(default="lid.176")
    """Model: lid.176 knows 176 languages and is installed with the package; GlotLID knows some 2,000, with scripts."""
    model: str = not_hashed(default="")
    """GlotLID's fastText .bin: a path, or a URL (hf://cis-lmu/glotlid/model_v3.bin, 1.69 GB; s3://, gs://, https://),
    which is downloaded once to the user's cache. Its SHA-256 is part of the hash of texts/."""
    model_sha256: str = not_hashed(default="")
    """SHA-256 of `model`. Required, because fastText does not check files: the error without it prints it."""

    name = "language"
    title = "Language"
    summary = (
        "A classifier (fastText's lid.176, arXiv:1607.01759, or GlotLID, arXiv:2310.16248) gives the likeliest "
        "language."
    )
    signals = (Signal("language_score", "Language score", "The probability of the likeliest language."),)
    rules = (Rule("low_language_score", "language_score", "at most", "min_score"),)
    other_reasons = (("other_language", "The likeliest language is not wanted."),)

    def check_values(self):
        within(self, "documents.language", 0, 1, "min_score")
        if self.detector == "glotlid" and not self.model:
            raise UsageError(
                "documents.language.detector is glotlid, but documents.language.model is empty. Give the fastText .bin "
                "or its address: --documents.language.model hf://cis-lmu/glotlid/model_v3.bin (1.69 GB)"
            )
        for code in self.languages:
            self.check_language(code)

    def check_language(self, code: str) -> None:
        """Raise UsageError if the detector does not know the language `code`, or if it is not written as "deu_Latn"
        although languages have scripts (`labelled`)."""
        has = f"documents.language.languages has {code!r}, "
        if self.labelled and not LABEL.fullmatch(code):
            like = f"as {'_'.join(LABELS[code])!r}" if code in LABELS else "like 'deu_Latn'"
            raise UsageError(f"{has}which is not an ISO 639-3 code with an ISO 15924 script. Write it {like}.")
        known = {language for language, _ in LABELS.values()} if self.labelled else LANGUAGES
        name, rest = (code[:3], code[3:]) if self.labelled else (code, "")
        if self.detector == "lid.176" and name not in known:
            near = difflib.get_close_matches(name.lower(), sorted(known), 1)
            raise UsageError(
                f"{has}which lid.176 does not know (data_prep/config/language.py). "
                f"{f'Did you mean {near[0]}{rest}? ' if near else ''}GlotLID knows more languages: "
                "--documents.language.detector glotlid"
            )

    @property
    def labelled(self) -> bool:
        """Whether languages are written with their scripts: with GlotLID, or if any of `languages` has a script."""
        return self.detector == "glotlid" or any("_" in code for code in self.languages)

    def other_checks(self, rows: "pa.RecordBatch | pa.Table") -> Iterator[tuple[str, "np.ndarray"]]:
        import numpy as np

        if self.languages:
            wanted = frozenset(self.languages)
            others = (language not in wanted for language in self.named(rows))
            yield "other_language", np.fromiter(others, bool, rows.num_rows)

    def named(self, rows: "pa.RecordBatch | pa.Table") -> list[str]:
        """Return the language of each row in the notation of `languages` ("de" or "deu_Latn"); "" if not detected."""
        languages = rows["language"].to_pylist()
        if not self.labelled:
            return languages
        scripts = rows["language_script"].to_pylist()
        return [f"{language}_{script}" if language else "" for language, script in zip(languages, scripts, strict=True)]

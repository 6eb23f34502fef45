"""Config of all steps from web pages to documents."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from data_prep.config.by_language import STOP_WORDS, ByLanguageConfig, LanguageThresholds
from data_prep.config.deduplicate import (
    DecontaminationConfig,
    DedupIndexConfig,
    LineDedupConfig,
    MinHashConfig,
    SubstringDedupConfig,
    UrlDedupConfig,
)
from data_prep.config.extract import ExtractConfig
from data_prep.config.filters import KNOWN, Filter, check_filters
from data_prep.config.language import LanguageConfig
from data_prep.config.personal_data import PersonalDataConfig
from data_prep.config.url_filter import UrlFilterConfig
from lm.errors import UsageError
from lm.fields import Config, within

BEFORE_FILTERS = ("read", "url_filter", "extract", "language")
DEDUP = ("url_dedup", "exact_dedup", "minhash_dedup")
"""Deduplication steps in their order; after the filters, or before them with minhash.before_filters."""
AFTER_DEDUP = ("line_dedup", "substring_dedup", "decontamination")
"""Steps that compare parts of texts, after the deduplication of documents (data_prep/prepare.py)."""
AFTER_FILTERS = (*DEDUP, *AFTER_DEDUP)


@dataclass(frozen=True)
class DocumentsConfig(Config):
    """Settings of all steps from web pages to clean, deduplicated documents."""

    # Made by `documents_config`, which adds a section for each filter.

    dump: str
    """Name of the crawl, a column of every document. Documents whose input names a dump keep that name."""
    steps: tuple[str, ...]
    """The optional steps to apply, in the recipe's order."""
    url_filter: UrlFilterConfig
    extract: ExtractConfig
    language: LanguageConfig
    minhash: MinHashConfig
    personal_data: PersonalDataConfig
    sample_rate: float = 1.0
    """Share of pages to read, chosen by a hash of their ids, before any expensive work."""
    sample_seed: int = 0
    """Seed of the choice of pages."""
    url_dedup: UrlDedupConfig = UrlDedupConfig()  # noqa: RUF009
    dedup_index: DedupIndexConfig = DedupIndexConfig()  # noqa: RUF009
    line_dedup: LineDedupConfig = LineDedupConfig()  # noqa: RUF009
    substring_dedup: SubstringDedupConfig = SubstringDedupConfig()  # noqa: RUF009
    decontamination: DecontaminationConfig = DecontaminationConfig()  # noqa: RUF009
    across_dumps: bool = False
    """Deduplicate across all dumps; if disabled, within each dump, as FineWeb does."""
    measure_other_languages: bool = True
    """Measure the signals of texts in unwanted languages too. If disabled, their signals are null and launch.refilter
    cannot select other languages; the texts are dropped either way."""
    write_dropped: bool = True
    """Write the dropped documents to dropped/; if disabled, its files have no rows. Counts include them either way."""

    by_language: ByLanguageConfig | None = None
    """Per-language thresholds, stop words and word splitters, after FineWeb-2; None: the same for all languages."""

    sections: ClassVar[tuple[str, ...]] = ()
    """Names of the recipe's filters in their order; each is a field."""

    def check_values(self):
        within(self, "documents", 0, 2**63 - 1, "sample_seed")
        within(self, "documents", 0, 1, "sample_rate", above=True)
        known = (*self.sections, *AFTER_FILTERS)
        if unknown := [step for step in self.steps if step not in known]:
            raise UsageError(f"documents.steps has {unknown[0]!r}; this recipe has {', '.join(known)}.")
        if self.steps != (wanted := tuple(step for step in known if step in self.steps)):
            raise UsageError(
                f"documents.steps is {' '.join(self.steps)}, but each filter sees the output of the one before, and "
                f"the recipe's order is {' '.join(wanted)}. Give the steps in this order, each once."
            )
        if self.by_language is not None:
            self.by_language.check_languages(self.language.languages)
        asked = {
            "minhash.cluster_sizes": self.minhash.cluster_sizes,
            "minhash.upsampling_weights": self.minhash.upsampling_weights,
            "dedup_index.against": self.dedup_index.against,
            "dedup_index.write": self.dedup_index.write,
        }
        if given := [name for name, value in asked.items() if value and not set(DEDUP) & set(self.steps)]:
            raise UsageError(
                f"documents.{given[0]} is given, but documents.steps has no deduplication step ({', '.join(DEDUP)}). "
                f"Add a step, or remove documents.{given[0]}."
            )
        if "decontamination" in self.steps and not self.decontamination.sets:
            raise UsageError(
                "documents.steps has decontamination, but documents.decontamination.sets is empty. Give the files of "
                "the evaluation sets (.jsonl), or remove the step."
            )

    @property
    def counts_clusters(self) -> bool:
        """Whether any option needs the sizes of clusters."""
        return self.minhash.cluster_sizes or bool(self.minhash.upsampling_weights)

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The recipe's filters in order of application, whether used or not."""
        return tuple(getattr(self, name) for name in self.sections)

    @property
    def all_filters(self) -> tuple[Filter, ...]:
        """All filters that compare stored values with limits, in their order, whether used or not."""
        return (self.language, *self.filters)

    @property
    def used_filters(self) -> tuple[Filter, ...]:
        return tuple(one for one in self.all_filters if one is self.language or one.name in self.steps)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that can drop a document, in order of application: the order of the funnel."""
        if self.minhash.before_filters:
            return (*BEFORE_FILTERS, *DEDUP, *self.sections, *AFTER_DEDUP)
        return (*BEFORE_FILTERS, *self.sections, *AFTER_FILTERS)

    def stage_order(self, stage: str) -> tuple[int, str]:
        """Return the key that sorts stages into the order of `stages`; unknown ones come last."""
        return (self.stages.index(stage), "") if stage in self.stages else (len(self.stages), stage)

    @functools.cached_property
    def thresholds_by_language(self) -> dict[str, LanguageThresholds]:
        """{"deu_Latn": its thresholds}; {} if all languages share the same. Raises UsageError if they were not read yet
        (data_prep.by_language.with_thresholds)."""
        if self.by_language is None:
            return {}
        return self.by_language.read(self.language.languages)

    @functools.cached_property
    def filters_by_language(self) -> dict[str, tuple[Filter, ...]]:
        """{"deu_Latn": the recipe's filters with the stop words of that language}."""
        return {
            label: tuple(
                dataclasses.replace(one, **{STOP_WORDS[1]: found.stopwords}) if one.name == STOP_WORDS[0] else one
                for one in self.filters
            )
            for label, found in self.thresholds_by_language.items()
        }

    def get[Kind: Filter](self, kind: type[Kind]) -> Kind:
        """Return the recipe's filter of class `kind`. Raises UsageError if it has none."""
        for one in self.all_filters:
            if isinstance(one, kind):
                return one
        raise UsageError(f"The recipe has no filter {kind.name}, only {', '.join(self.sections) or 'none'}. Add it.")

    def of_texts(self) -> dict[str, object]:
        """Return {name: value} of all settings that determine texts/, the extracted texts with their measured values.
        Thresholds do not."""
        filters = {one.name: [signal.name for signal in one.signals] for one in self.filters}
        return {
            "dump": self.dump,
            "url_filter": self.url_filter,
            "extract": self.extract,
            **{f"{one.name} lines are dropped": one.name in self.steps for one in self.filters if one.rewrites},
            **{
                f"{one.name}.{field.name}": getattr(one, field.name)
                for one in (self.language, *self.filters)
                for field in dataclasses.fields(one)
                if field.metadata.get("measured")
                and not (field.metadata.get("added") and getattr(one, field.name) == field.default)
            },
            **({} if self.by_language is None else self.by_language.of_texts(self.language.languages)),
            **({} if self.measure_other_languages else {"languages measured": sorted(set(self.language.languages))}),
            "filters": filters,
            **({} if self.sample_rate == 1 else {"sample": [self.sample_rate, self.sample_seed]}),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in self.sections}
        return functools.partial(documents_config, self.filters, **rest), ()


def documents_config(filters: Sequence[Filter], **fields: Any) -> DocumentsConfig:
    """Return a DocumentsConfig with these filters, in their order. Each becomes a section, whose fields are set by
    --documents.NAME.FIELD. `fields` are the other fields of DocumentsConfig. Raises UsageError if a filter is
    incomplete, or two filters share a name, a signal or a reason."""
    kind = class_with(tuple(type(one) for one in filters))
    KNOWN.update({one.name: type(one) for one in filters})
    return kind(**fields, **{one.name: one for one in filters})


@functools.cache
def class_with(kinds: tuple[type[Filter], ...]) -> Any:
    """Return a subclass of DocumentsConfig with one field per filter class, so that a filter is a section like any
    other."""
    sections = tuple(kind.name for kind in kinds)
    fields_taken = {field.name for field in dataclasses.fields(DocumentsConfig)} | {*dir(DocumentsConfig)}
    taken = fields_taken.union(BEFORE_FILTERS, AFTER_FILTERS) - {LanguageConfig.name}
    check_filters((LanguageConfig, *kinds), taken)
    steps = tuple[Literal[*sections, *AFTER_FILTERS], ...]  # ty: ignore[invalid-type-form] - made for the command line
    fields: list[tuple[str, Any]] = [("steps", steps), *((kind.name, kind) for kind in kinds)]
    namespace = {"sections": sections, "__doc__": DocumentsConfig.__doc__}
    return dataclasses.make_dataclass(
        "DocumentsConfig", fields, bases=(DocumentsConfig,), namespace=namespace, frozen=True, kw_only=True,
        module=__name__,
    )  # fmt: skip


KNOWN[LanguageConfig.name] = LanguageConfig

"""All knobs of the way from web pages to documents."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from data_prep.config.decontamination import DecontaminationConfig
from data_prep.config.deduplicate import MinHashConfig
from data_prep.config.extract import ExtractConfig
from data_prep.config.filters import KNOWN, Filter, check_filters
from data_prep.config.language import LanguageConfig
from data_prep.config.personal_data import PersonalDataConfig
from data_prep.config.quality_classifier import QualityClassifierConfig
from data_prep.config.repeated_text import LineDedupConfig, SubstringDedupConfig
from data_prep.config.url_filter import UrlFilterConfig
from lm.errors import UsageError
from lm.fields import Config, added, not_hashed, within

BEFORE_FILTERS = ("read", "url_filter", "extract", "language")
AFTER_DEDUP = ("line_dedup", "substring_dedup", "decontamination")
"""Steps that look at parts of texts, after the deduplication of whole ones (data_prep/select/edits.py)."""
AFTER_FILTERS = ("quality_classifier", "exact_dedup", "minhash_dedup", *AFTER_DEDUP)
ALWAYS_MEASURED = ("gopher_repetition", "gopher_quality", "c4", "fineweb")
"""The filters of runs that were made before a recipe could have others: where it has just these, texts/ of such a run
still fits, and so they are not named in `of_texts`."""


@dataclass(frozen=True)
class DocumentsConfig(Config):
    """From web pages to clean, deduplicated documents."""

    # Made by `documents_config`, which adds a section for each filter.

    dump: str
    """Name of the crawl, a column of every document; documents that come with a name of their own keep it."""
    steps: tuple[str, ...]
    """Which of the filters that may be left out are used; their order is the recipe's."""
    url_filter: UrlFilterConfig
    extract: ExtractConfig
    language: LanguageConfig
    quality_classifier: QualityClassifierConfig
    minhash: MinHashConfig
    personal_data: PersonalDataConfig
    workers: int = not_hashed()
    """Worker processes. One works in this process, without Beam; more are Beam's on this machine, or Dask's."""
    runner: Literal["local", "dask", "beam"] = not_hashed(default="local")
    """Who runs the workers: Beam's FnApiRunner on this machine, a Dask cluster, or what beam_options name."""
    beam_options: str = not_hashed(default="")
    """Options of Beam's own as a shell takes them, as "--runner=FlinkRunner --flink_master=HOST:8081", where runner
    is beam or dask (docs/data.md)."""
    line_dedup: LineDedupConfig = added(default=LineDedupConfig())  # noqa: RUF009
    substring_dedup: SubstringDedupConfig = added(default=SubstringDedupConfig())  # noqa: RUF009
    decontamination: DecontaminationConfig = added(default=DecontaminationConfig())  # noqa: RUF009

    sections: ClassVar[tuple[str, ...]] = ()
    """Names of the recipe's filters, in their order: each is a field."""

    def __post_init__(self):
        super().__post_init__()
        within(self, "documents", 1, 10_000, "workers")
        known = (*self.sections, *AFTER_FILTERS)
        if unknown := [step for step in self.steps if step not in known]:
            raise UsageError(f"documents.steps has {unknown[0]!r}; this recipe has {', '.join(known)}.")
        if "quality_classifier" in self.steps and not self.quality_classifier.model:
            raise UsageError(
                "documents.steps has quality_classifier, but documents.quality_classifier.model is empty. Give the "
                "folder of a model (python -m launch.train_quality_classifier makes one), or leave the step out."
            )

        if "decontamination" in self.steps and not self.decontamination.sets:
            raise UsageError(
                "documents.steps has decontamination, but documents.decontamination.sets is empty. Give the files of "
                "the evaluation sets (.jsonl), or leave the step out."
            )
        for number, step in enumerate(self.steps):
            if step in AFTER_DEDUP and (
                late := [one for one in self.steps[number:] if self.stage_order(one) < self.stage_order(step)]
            ):
                raise UsageError(
                    f"documents.steps has {step} before {late[0]}, but {step} works on what {late[0]} leaves. Name "
                    f"{late[0]} first; the order is {', '.join(AFTER_FILTERS)}."
                )

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The recipe's, used or not, in the order in which they are applied."""
        return tuple(getattr(self, name) for name in self.sections)

    @property
    def all_filters(self) -> tuple[Filter, ...]:
        """All that draw lines through stored values, used or not, in their order."""
        return (self.language, *self.filters, self.quality_classifier)

    @property
    def used_filters(self) -> tuple[Filter, ...]:
        return tuple(one for one in self.all_filters if one is self.language or one.name in self.steps)

    @property
    def stages(self) -> tuple[str, ...]:
        """What may drop a document, in the order in which it does; so the funnel is told."""
        return (*BEFORE_FILTERS, *self.sections, *AFTER_FILTERS)

    def stage_order(self, stage: str) -> tuple[int, str]:
        """A key that sorts stages in their order; one that is not among them comes last."""
        return (self.stages.index(stage), "") if stage in self.stages else (len(self.stages), stage)

    def get[Kind: Filter](self, kind: type[Kind]) -> Kind:
        """The recipe's filter of that class. Raises UsageError where it has none."""
        for one in self.all_filters:
            if isinstance(one, kind):
                return one
        raise UsageError(f"The recipe has no filter {kind.name}. It has {', '.join(self.sections) or 'none'}.")

    def of_texts(self) -> dict[str, object]:
        """What decides texts/, as {name: value}: all that comes before the thresholds."""
        filters = {one.name: [signal.name for signal in one.signals] for one in self.filters}
        return {
            "dump": self.dump,
            "url_filter": self.url_filter,
            "extract": self.extract,
            **{f"{one.name} lines are dropped": one.name in self.steps for one in self.filters if one.rewrites},
            "quality classifier": self.quality_classifier.model if "quality_classifier" in self.steps else "",
            **{
                f"{one.name}.{field.name}": getattr(one, field.name)
                for one in (self.language, *self.filters)
                for field in dataclasses.fields(one)
                if field.metadata.get("measured")
            },
            **({} if self.sections == ALWAYS_MEASURED else {"filters": filters}),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in self.sections}
        return functools.partial(documents_config, self.filters, **rest), ()


def documents_config(filters: Sequence[Filter], **fields: Any) -> DocumentsConfig:
    """A DocumentsConfig with these filters, in their order, each a section under its name, so that
    --documents.NAME.FIELD changes it; `fields` are the others of DocumentsConfig.

    Raises UsageError where a filter is not whole, or two of them share a name, a signal or a reason.
    """
    kind = class_with(tuple(type(one) for one in filters))
    KNOWN.update({one.name: type(one) for one in filters})
    return kind(**fields, **{one.name: one for one in filters})


@functools.cache
def class_with(kinds: tuple[type[Filter], ...]) -> Any:
    """DocumentsConfig with a field for each filter: a section like any other to the command line, markers, messages."""
    sections = tuple(kind.name for kind in kinds)
    fields_taken = {field.name for field in dataclasses.fields(DocumentsConfig)} | {*dir(DocumentsConfig)}
    taken = fields_taken.union(BEFORE_FILTERS, AFTER_FILTERS) - {LanguageConfig.name, QualityClassifierConfig.name}
    check_filters((LanguageConfig, *kinds, QualityClassifierConfig), taken)
    steps = tuple[Literal[*sections, *AFTER_FILTERS], ...]  # ty: ignore[invalid-type-form] - made for the command line
    fields: list[tuple[str, Any]] = [("steps", steps), *((kind.name, kind) for kind in kinds)]
    namespace = {"sections": sections, "__doc__": DocumentsConfig.__doc__}
    return dataclasses.make_dataclass(
        "DocumentsConfig", fields, bases=(DocumentsConfig,), namespace=namespace, frozen=True, kw_only=True,
        module=__name__,
    )  # fmt: skip


KNOWN.update({kind.name: kind for kind in (LanguageConfig, QualityClassifierConfig)})

"""All knobs of the way from web pages to documents."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from data_prep.config.deduplicate import MinHashConfig
from data_prep.config.extract import ExtractConfig
from data_prep.config.language import LanguageConfig
from data_prep.config.model_quality import ModelQualityConfig
from data_prep.config.personal_data import PersonalDataConfig
from data_prep.config.quality import C4Config, FineWebConfig, GopherQualityConfig, GopherRepetitionConfig
from data_prep.config.url_filter import UrlFilterConfig
from lm.errors import UsageError
from lm.fields import Config, incidental, within

Step = Literal["gopher_repetition", "gopher_quality", "c4", "fineweb", "model_quality", "exact_dedup", "minhash_dedup"]


@dataclass(frozen=True)
class DocumentsConfig(Config):
    """From web pages to clean, deduplicated documents."""

    dump: str
    """Name of the crawl, a column of every document; documents that come with a name of their own keep it."""
    steps: tuple[Step, ...]
    """Which of the filters that may be left out are used; their order is fixed (data_prep/documents.py)."""
    url_filter: UrlFilterConfig
    extract: ExtractConfig
    language: LanguageConfig
    gopher_repetition: GopherRepetitionConfig
    gopher_quality: GopherQualityConfig
    c4: C4Config
    fineweb: FineWebConfig
    model_quality: ModelQualityConfig
    minhash: MinHashConfig
    personal_data: PersonalDataConfig
    workers: int = incidental()
    """Worker processes. One works in this process, without Beam; more are Beam's on this machine, or Dask's."""
    runner: Literal["local", "dask", "beam"] = incidental(default="local")
    """Who runs the workers: Beam's FnApiRunner on this machine, a Dask cluster, or what beam_options name."""
    beam_options: str = incidental(default="")
    """Options of Beam's own as a shell takes them, as "--runner=FlinkRunner --flink_master=HOST:8081", where runner
    is beam or dask (docs/data.md)."""

    def __post_init__(self):
        super().__post_init__()
        within(self, "documents", 1, 10_000, "workers")
        if "model_quality" in self.steps and not self.model_quality.model:
            raise UsageError(
                "documents.steps has model_quality, but documents.model_quality.model is empty. Give the folder of a "
                "model (python -m launch.train_quality_model makes one), or leave the step out."
            )
        if not 0 <= self.language.min_score <= 1:
            raise UsageError(
                f"documents.language.min_score is {self.language.min_score}; a probability is from 0 to 1."
            )

    def of_texts(self) -> dict[str, object]:
        """What decides texts/, as {name: value}: all that comes before the thresholds."""
        filters = {
            name: getattr(self, name) for name in ("language", "gopher_repetition", "gopher_quality", "c4", "fineweb")
        }
        return {
            "dump": self.dump,
            "url_filter": self.url_filter,
            "extract": self.extract,
            "c4 lines are dropped": "c4" in self.steps,
            "quality model": self.model_quality.model if "model_quality" in self.steps else "",
            **{
                f"{name}.{field.name}": getattr(config, field.name)
                for name, config in filters.items()
                for field in dataclasses.fields(config)
                if field.metadata.get("measured")
            },
        }

"""All configs of data_prep, as frozen dataclasses. Importing them is cheap, so --help is fast.

Fields marked `not_hashed` change only speed, not results; fields marked `measured` determine the values of signals
(lm/fields.py).
"""

from data_prep.config.by_language import ByLanguageConfig, LanguageThresholds
from data_prep.config.deduplicate import (
    DecontaminationConfig,
    DedupIndexConfig,
    LineDedupConfig,
    MinHashConfig,
    SubstringDedupConfig,
    UrlDedupConfig,
)
from data_prep.config.documents import DocumentsConfig, documents_config
from data_prep.config.engine import ONE_PROCESS, EngineConfig
from data_prep.config.extract import ExtractConfig
from data_prep.config.filters import Filter, Rule, Signal
from data_prep.config.language import LanguageConfig
from data_prep.config.pages import CommonCrawlPages, PackagePages, PagesConfig, TfdsPages
from data_prep.config.personal_data import PersonalDataConfig
from data_prep.config.shards import ShardsConfig
from data_prep.config.url_filter import PackageLists, UrlFilterConfig

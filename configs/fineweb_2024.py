"""Clean Common Crawl by the rules of the published FineWeb (April 2024), and train GPT-2 small on it.

    python -m launch.pretrain configs/fineweb_2024.py --pages.common-crawl.files 100

Same as configs/fineweb.py except for the recipe: see configs/recipes/fineweb_2024.py and docs/recipes.md. Extraction
and word splitting by the original libraries take several times as long (docs/benchmarks.md).
"""

import dataclasses

from configs import fineweb
from configs.experiment import Experiment
from configs.recipes import fineweb_2024 as recipe


def get_config() -> Experiment:
    base = fineweb.get_config()
    return dataclasses.replace(base, documents=recipe.documents(base.documents.dump))

"""Documents from Common Crawl by the recipe of datatrove 0.10, and GPT-2 small on them.

    python -m launch.pretrain configs/datatrove_0_10.py --pages.common-crawl.files 100

As configs/fineweb.py, but for the recipe: configs/recipes/datatrove_0_10.py, and docs/recipes.md on what it is.
"""

import dataclasses

from configs import fineweb
from configs.experiment import Experiment
from configs.recipes import datatrove_0_10 as recipe


def get_config() -> Experiment:
    base = fineweb.get_config()
    return dataclasses.replace(base, documents=recipe.documents(base.documents.dump))

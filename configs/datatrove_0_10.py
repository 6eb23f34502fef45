"""Clean Common Crawl by the recipe of datatrove 0.10, and train GPT-2 small on it.

    python -m launch.pretrain configs/datatrove_0_10.py --pages.common-crawl.files 100

Same as configs/fineweb.py except for the recipe: see configs/recipes/datatrove_0_10.py and docs/recipes.md.
"""

import dataclasses

from configs import fineweb
from configs.experiment import Experiment
from configs.recipes import datatrove_0_10 as recipe


def get_config() -> Experiment:
    base = fineweb.get_config()
    return dataclasses.replace(base, documents=recipe.documents(base.documents.dump))

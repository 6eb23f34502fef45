"""Ten languages of Common Crawl by a recipe after FineWeb-2's (Penedo et al. 2025), and GPT-2 small on them.

    make languages
    python -m launch.pretrain configs/fineweb_2.py --pages.common-crawl.files 100

The first installs what finds the words of languages that are written without spaces. Thresholds are fetched from
FineWeb-2's repository, 500 bytes a language; those of your own come by --documents.by-language.folder. Languages are
told by lid.176; FineWeb-2 asked GlotLID, 1.69 GB, which its thresholds for certainty were drawn for:

    python -m launch.pretrain configs/fineweb_2.py --documents.language.detector glotlid \\
        --documents.language.model hf://cis-lmu/glotlid/model_v3.bin --documents.language.letters-only False

Other languages are named with their scripts (--documents.language.languages pol_Latn ukr_Cyrl): docs/languages.md. On
one machine it is the data that this config is for; the model is GPT-2 with 124 M parameters and a vocabulary of 65,536.
"""

import dataclasses

from configs import fineweb
from configs.experiment import Experiment
from configs.recipes import fineweb_2 as recipe
from configs.recipes.gristmill import URL_FILTER

VOCABULARY = 65_536  # ids of two bytes; scripts need more symbols than English alone


def get_config() -> Experiment:
    base = fineweb.get_config()
    return dataclasses.replace(
        base,
        documents=recipe.documents(base.documents.dump, URL_FILTER),
        tokenizer=dataclasses.replace(base.tokenizer, vocab_size=VOCABULARY),
        model=dataclasses.replace(base.model, vocab_size=VOCABULARY),
        train=dataclasses.replace(base.train, sample_prompt="In 1969"),
        sample=dataclasses.replace(base.sample, prompts=("Die Geschichte der", "La historia de", "История", "1969年")),
    )

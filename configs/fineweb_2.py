"""Clean ten languages of Common Crawl by a recipe based on FineWeb-2's (Penedo et al. 2025), and train GPT-2 small.

    make languages
    python -m launch.pretrain configs/fineweb_2.py --pages.common-crawl.files 100

The first command installs word splitters for languages that are written without spaces. Thresholds are FineWeb-2's; to
use your own, set --documents.by-language.folder. Languages are detected by lid.176; FineWeb-2 used GlotLID, 1.69 GB,
and its thresholds for the language score are calibrated to it (the command without the SHA-256 prints it):

    python -m launch.pretrain configs/fineweb_2.py --documents.language.detector glotlid \\
        --documents.language.model hf://cis-lmu/glotlid/model_v3.bin --documents.language.letters-only False \\
        --documents.language.model-sha256 SHA256

Name other languages with their scripts (--documents.language.languages pol_Latn ukr_Cyrl): see docs/languages.md. On
one machine, use this config for the data; the model is GPT-2 with 124 M parameters and a vocabulary of 65,536.
"""

import dataclasses

from configs import fineweb
from configs.experiment import Experiment
from configs.recipes import fineweb_2 as recipe
from configs.recipes.gristmill import URL_FILTER

VOCABULARY = 65_536  # 2-byte ids; several scripts need more symbols than English


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

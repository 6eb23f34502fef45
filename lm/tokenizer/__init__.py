"""Convert text to token ids and back. Does not use JAX.

Byte-level BPE (Sennrich 2016, arXiv:1508.07909; on bytes: Radford 2019), trained here or loaded; sentencepiece (Kudo
and Richardson 2018, arXiv:1808.06226); single characters. All are subclasses of `Tokenizer`.
"""

from lm.tokenizer.base import Tokenizer
from lm.tokenizer.bpe import train_bpe
from lm.tokenizer.encoding import BytePairTokenizer
from lm.tokenizer.files import load, save
from lm.tokenizer.training import train_tokenizer

"""A tokenizer of single bytes, and of some longer tokens."""

from lm.config import END_OF_TEXT
from lm.tokenizer import BytePairTokenizer
from lm.tokenizer.encoding import numbered


def byte_tokenizer(pattern: str, *tokens: bytes) -> BytePairTokenizer:
    every = (*(bytes([byte]) for byte in range(256)), *tokens)
    return BytePairTokenizer(pattern, every, special_tokens=numbered(every, (END_OF_TEXT,)))

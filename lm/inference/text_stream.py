"""Decode a text token by token: returns only whole characters, and nothing that could still become a stop string."""

import codecs
from collections.abc import Sequence

from lm.tokenizer.base import Tokenizer


class StopString:
    """Finds a string in text that arrives character by character (Knuth, Morris and Pratt 1977)."""

    def __init__(self, string: str):
        self.string = string
        self.matched = 0
        """Length of the longest prefix of the string that the text ends in."""
        self.shorter = [0]
        """For each prefix of the string, the length of the longest shorter prefix that it ends in."""
        for character in string[1:]:
            self.shorter.append(self.longest(self.shorter[-1], character))

    def longest(self, matched: int, character: str) -> int:
        """Return how many characters of the string match after one more `character`; `matched` matched before it."""
        while matched and (matched == len(self.string) or self.string[matched] != character):
            matched = self.shorter[matched - 1]
        return matched + (self.string[matched] == character)

    def read(self, character: str) -> bool:
        """Add a character; return whether the text now ends in the string."""
        self.matched = self.longest(self.matched, character)
        return self.matched == len(self.string)


class TextStream:
    """Decodes tokens to text one by one, up to the first stop string.

    If several stop strings end at the same character, the text ends before the longest. The time per token is
    proportional to its own characters.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()):
        self.tokenizer = tokenizer
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.stops = [StopString(one) for one in stop]
        self.held = ""
        """Characters that could begin a stop string."""
        self.stopped = False
        """Whether a stop string was found; no more text follows."""

    def push(self, token: int) -> str:
        """Add a token; return the new text that is final: whole characters that begin no stop string."""
        return self.certain(self.decoder.decode(self.tokenizer.token_bytes(token)))

    def finish(self) -> str:
        """End the text and return what `push` held back; an incomplete character becomes U+FFFD."""
        text = self.certain(self.decoder.decode(b"", final=True))
        if self.stopped:
            return text
        text, self.held = text + self.held, ""
        return text

    def certain(self, piece: str) -> str:
        if self.stopped or not self.stops:
            return "" if self.stopped else piece
        for number, character in enumerate(piece, 1):
            found = [len(stop.string) for stop in self.stops if stop.read(character)]
            if found:
                self.stopped = True
                text = self.held + piece[:number]
                self.held = ""
                return text[: len(text) - max(found)]
        text = self.held + piece
        sent = len(text) - max(stop.matched for stop in self.stops)
        self.held = text[sent:]
        return text[:sent]

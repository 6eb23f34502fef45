"""A text as it grows token by token: whole characters alone, and nothing that may yet become a stop string."""

import codecs
from collections.abc import Sequence

from lm.tokenizer.base import Tokenizer


class StopString:
    """Finds one string in a text that comes in pieces (Knuth, Morris and Pratt 1977): a step or two a character,
    however long the string is."""

    def __init__(self, string: str):
        self.string = string
        self.matched = 0
        """Characters at the end of the text that begin the string."""
        self.shorter = [0]
        """For each beginning of the string, the length of the longest shorter one that it ends in."""
        for character in string[1:]:
            self.shorter.append(self.longest(self.shorter[-1], character))

    def longest(self, matched: int, character: str) -> int:
        """How much of the string the text ends in with one character more."""
        while matched and (matched == len(self.string) or self.string[matched] != character):
            matched = self.shorter[matched - 1]
        return matched + (self.string[matched] == character)

    def read(self, character: str) -> bool:
        """Whether the text with this character ends in the string."""
        self.matched = self.longest(self.matched, character)
        return self.matched == len(self.string)


class TextStream:
    """The text of tokens that are given one by one; it ends before the first stop string.

    Of stop strings that end at the same character, the longest counts. Each token takes time for its own characters
    alone.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()):
        self.tokenizer = tokenizer
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.stops = [StopString(one) for one in stop]
        self.held = ""
        """Characters that may begin a stop string."""
        self.stopped = False
        """Whether a stop string was found; then no text follows."""

    def push(self, token: int) -> str:
        """The text that is certain with this token, and was not before."""
        return self.certain(self.decoder.decode(self.tokenizer.token_bytes(token)))

    def finish(self) -> str:
        """The rest of the text, which nothing follows; half a character becomes U+FFFD."""
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

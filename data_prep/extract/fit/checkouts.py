"""The repositories whose pages the trees are fitted to, each at one commit, so that anyone fits to the same bytes."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from lm.errors import InputError


@dataclass(frozen=True)
class Source:
    """A repository at a commit."""

    url: str
    commit: str
    """All 40 digits."""
    folder: str
    """Of the pages, inside."""


SOURCES = {
    "wcxb": Source(
        "https://github.com/Murrough-Foley/web-content-extraction-benchmark",
        "c039d5ee9f5a3a984a0e167e63aacd04e76e78a9",
        ".",
    ),
    "trafilatura": Source("https://github.com/adbar/trafilatura", "e90b0ef51ab026fdb905fb6c5b3c84dd3d784fd5", "tests"),
    "readability": Source(
        "https://github.com/mozilla/readability", "ab4027a8b37669745016869a37a504727992b2ba", "test/test-pages"
    ),
}


def git(*arguments: str) -> str:
    """What git prints. Raises InputError with its message where it fails."""
    try:
        done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise InputError("The pages to fit to are cloned by git, which is not installed.") from error
    except subprocess.CalledProcessError as error:
        raise InputError(f"git {' '.join(arguments)} failed: {error.stderr.strip()}") from error
    return done.stdout.strip()


def pages_at(checkouts: Path, name: str) -> Path:
    """The folder of the pages of SOURCES[name]. Clones the repository to checkouts/name where that is absent.

    Raises InputError where it is there at another commit, or changed.
    """
    source, clone = SOURCES[name], checkouts / name
    if not clone.exists():
        checkouts.mkdir(parents=True, exist_ok=True)
        git("clone", "--quiet", "--no-checkout", source.url, str(clone))
        git("-C", str(clone), "checkout", "--quiet", source.commit)
    commit = git("-C", str(clone), "rev-parse", "HEAD")
    if commit != source.commit:
        raise InputError(
            f"{clone} is at commit {commit}, the trees are fitted to {source.commit}. "
            f"Bring it there: git -C {clone} checkout {source.commit}"
        )
    if changed := git("-C", str(clone), "status", "--porcelain", "--", source.folder):
        raise InputError(
            f"{clone} differs from its commit: {changed.splitlines()[0].strip()}. Delete it and run again."
        )
    return clone / source.folder

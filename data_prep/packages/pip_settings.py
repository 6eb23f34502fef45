"""Which package index this machine uses, read from where pip reads it: its environment variables and its files.

Neither pip nor uv can be asked: an environment that uv made has no pip, uv takes no notice of pip's settings, and where
there is a pip, `pip config list` takes 0.36 CPU seconds, this 0.7 ms. So pip's rules are followed here (its
documentation, "Configuration").
"""

import configparser
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from lm.errors import InputError

SECTIONS = ("global", "install", "download")  # later ones are for the command and win
YES = ("1", "true", "t", "yes", "y", "on")  # how pip reads a switch


@dataclass(frozen=True)
class PipSettings:
    """The part of pip's configuration that a download needs; None where pip has its own default."""

    index_url: str | None
    """Address of the simple index, without login."""
    login: tuple[str, str] | None
    """User name and password that stood in the index's address."""
    certificates: str | None
    """File or folder of certificate authorities to trust."""
    client_certificate: str | None
    """File with the certificate and key to show to the index."""
    proxy: str | None
    """Address of the proxy for all requests."""


def read_pip_settings(environment: Mapping[str, str] = os.environ) -> PipSettings:
    """pip's settings: environment variables win over files, a command's section over [global] in whatever file, and
    later files over earlier ones.

    A file that cannot be parsed is passed over. Raises InputError when no index may be asked (no-index).
    """
    sections: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for path in config_files(environment):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        for section in SECTIONS:
            if parser.has_section(section):
                sections[section] |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    values = {key: value for section in SECTIONS for key, value in sections[section].items()}
    for key in ("index-url", "no-index", "cert", "client-cert", "proxy"):
        if variable := environment.get("PIP_" + key.upper().replace("-", "_")):
            values[key] = variable
    if (no_index := values.get("no-index", "").strip()).lower() in YES:
        raise InputError(
            f"pip's settings forbid to ask a package index: no-index is {no_index} (PIP_NO_INDEX or pip's files). "
            "Take that away, or give WARC files of your own (pages.warc)."
        )
    index_url, login = split_login(values["index-url"].strip()) if values.get("index-url") else (None, None)
    return PipSettings(
        index_url=index_url,
        login=login,
        certificates=values.get("cert"),
        client_certificate=values.get("client-cert"),
        proxy=values.get("proxy"),
    )


def config_files(environment: Mapping[str, str]) -> list[Path]:
    """pip's configuration files, weakest first: global, user, this environment's, and the one in PIP_CONFIG_FILE."""
    chosen = environment.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return []
    home = Path(environment.get("HOME") or Path.home())
    user_config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    if sys.platform == "darwin":
        files = [Path("/Library/Application Support/pip/pip.conf")]
        user = [home / ".pip/pip.conf", user_config / "pip/pip.conf", home / "Library/Application Support/pip/pip.conf"]
    else:
        shared = environment.get("XDG_CONFIG_DIRS") or "/etc/xdg"
        files = [Path(folder) / "pip/pip.conf" for folder in reversed(shared.split(os.pathsep))]
        files.append(Path("/etc/pip.conf"))
        user = [home / ".pip/pip.conf", user_config / "pip/pip.conf"]
    if not (chosen and Path(chosen).is_file()):  # pip leaves the user's files out when another is named
        files += user
    files.append(Path(sys.prefix) / "pip.conf")
    return [*files, Path(chosen)] if chosen else files


def split_login(url: str) -> tuple[str, tuple[str, str] | None]:
    """(url without login, (user, password) or None): so that no message shows a password."""
    parts = urlsplit(url)
    if parts.username is None:
        return url, None
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return bare, (unquote(parts.username), unquote(parts.password or ""))

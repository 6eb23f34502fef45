"""Download files from the package index configured for pip, each pinned by its SHA-256 and cached for the user.

pip itself cannot download them: for source distributions it would run their code, and an environment made by uv has no
pip. uv does not read pip's settings. So this module follows pip's rules (its documentation, "Configuration").
"""

import configparser
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lm.errors import InputError, UsageError, network_reason
from lm.fields import Config
from lm.storage import appearing, file_sha256, user_cache

if TYPE_CHECKING:
    from pypi_simple import PyPISimple

SETTINGS = ("index-url", "no-index", "cert", "client-cert", "proxy")
SECTIONS = ("global", "install", "download")
"""Sections of pip's files; those of commands override [global], whatever file they are in."""
YES = ("1", "true", "t", "yes", "y", "on")
"""pip's words for true."""
TIMEOUT_SECONDS = (10.0, 30.0)
"""Time to connect, and between two parts of a response."""
PAUSES_SECONDS = (1.0, 3.0)
"""Pauses before the second and third attempt."""


@dataclass(frozen=True)
class PackageFile(Config):
    """One file of a project on the package index, pinned by its hash."""

    project: str
    """Name of the project on the package index."""
    version: str
    """Release of the project."""
    name: str
    """File name: a wheel (.whl) or a source distribution (.tar.gz)."""
    sha256: str
    """SHA-256 of the file: 64 lower-case hexadecimal digits."""

    def check_values(self):
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise UsageError(
                f"The sha256 of the package {self.project} is {self.sha256!r}; it must be 64 hexadecimal digits "
                "in lower case."
            )
        if "/" in self.name or not self.name.endswith((".whl", ".tar.gz")):
            raise UsageError(
                f"The file of the package {self.project} is {self.name!r}; give the name of a .whl or .tar.gz."
            )


def package_cache() -> Path:
    """Return the folder of downloaded package files, shared by all runs of the user."""
    return user_cache(os.environ) / "packages"


def fetch_package(file: PackageFile, progress: Callable[[str], None] = print) -> Path:
    """Download `file` to the user's cache unless it is there; return its path. Raises InputError if the index cannot be
    reached, does not have the file or sends a different one, or if the cache cannot be written."""
    path = package_cache() / file.name
    try:
        if path.is_file() and file_sha256(path) == file.sha256:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path, scratch=path.parent) as partial:
            download(file, partial, progress)
    except OSError as error:
        raise InputError(
            f"{path} cannot be downloaded or written: {error.strerror or error}. Free space on the disk, fix the "
            f"permissions of {path.parent}, or set XDG_CACHE_HOME to another folder."
        ) from error
    return path


def download(file: PackageFile, partial: Path, progress: Callable[[str], None]) -> None:
    """Stream the file to the path `partial` and verify its hash, with retries. Raises as `fetch_package` does."""
    from pypi_simple import (
        DigestMismatchError,
        NoSuchProjectError,
        UnsupportedContentTypeError,
        UnsupportedRepoVersionError,
    )
    from requests import RequestException

    with index_client(pip_settings(os.environ)) as index:
        for pause in (*PAUSES_SECONDS, None):
            try:
                listed = index.get_project_page(file.project, timeout=TIMEOUT_SECONDS).packages
                found = next((one for one in listed if one.filename == file.name), None)
                if found is None:
                    known = ", ".join(one.filename for one in listed if one.version == file.version)
                    raise InputError(
                        f"The package index {index.endpoint} has no file {file.name} of {file.project}. Of version "
                        f"{file.version} it has: {known or 'nothing'}. Correct the pin, or PIP_INDEX_URL."
                    )
                # Replace the hash from the index: only the pin is trusted.
                pinned = dataclasses.replace(found, digests={"sha256": file.sha256})
                index.download_package(pinned, partial, timeout=TIMEOUT_SECONDS)
                progress(f"downloaded {file.name}: {partial.stat().st_size / 1e6:.1f} MB")
                return
            except NoSuchProjectError as error:
                raise InputError(
                    f"The package index {index.endpoint} has no project {file.project}. Correct the name, or point pip "
                    "to an index that has it (PIP_INDEX_URL)."
                ) from error
            except DigestMismatchError as error:
                raise InputError(
                    f"{file.name} from {index.endpoint} is not the pinned file, and was deleted.\n  SHA-256 pinned:   "
                    f"{file.sha256}\n  SHA-256 received: {error.actual_digest}\nFind out which is right before you "
                    "change the pin: the index, or something in between, may have sent a forged file."
                ) from error
            except RequestException as error:
                if pause is None:
                    raise InputError(
                        f"{file.name} cannot be fetched from the package index {index.endpoint}: "
                        f"{network_reason(error)}.\nCheck the network and pip's settings (PIP_INDEX_URL, PIP_CERT, "
                        f"PIP_PROXY). Or put the file, with SHA-256 {file.sha256}, at {package_cache() / file.name}. "
                        "Then run the same command again."
                    ) from error
                progress(f"{file.name}: {network_reason(error)}; trying again in {pause:g} s")
                time.sleep(pause)
            except (UnsupportedContentTypeError, UnsupportedRepoVersionError, ValueError) as error:
                raise InputError(
                    f"{index.endpoint} is not a package index: {error}. Correct the address (PIP_INDEX_URL or pip's "
                    "index-url; it usually ends in /simple)."
                ) from error


def index_client(settings: Mapping[str, str]) -> "PyPISimple":
    """Return a client for pip's index, with its login, certificates and proxy. Raises InputError if pip's settings
    forbid an index, or name certificates that do not exist."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple
    from requests.auth import HTTPBasicAuth
    from requests.utils import get_auth_from_url, urldefragauth

    if settings.get("no-index", "").strip().lower() in YES:
        raise InputError(
            f"pip's settings forbid a package index: no-index is {settings['no-index'].strip()} (PIP_NO_INDEX or "
            "pip's files). Remove the setting, or give your own files (pages.warc, pages.tables)."
        )
    url = settings.get("index-url", "").strip() or PYPI_SIMPLE_ENDPOINT
    client = PyPISimple(urldefragauth(url))  # so that no message shows a password
    host = client.endpoint.split("/")[2:3]

    class IndexLogin(HTTPBasicAuth):
        """Send the login only to the index's own host: files may be on another."""

        def __call__(self, r):
            return super().__call__(r) if (r.url or "").split("/")[2:3] == host else r

    if any(login := get_auth_from_url(url)):
        client.s.auth = IndexLogin(*login)
    if certificates := settings.get("cert"):
        if not Path(certificates).exists():
            raise InputError(
                f"pip's certificates (PIP_CERT, or cert in its files) should be {certificates}: no such file. Correct "
                "the setting."
            )
        client.s.verify = certificates  # requests prefers REQUESTS_CA_BUNDLE, as pip does
    client.s.cert = settings.get("client-cert")
    if proxy := settings.get("proxy"):
        client.s.proxies = {"http": proxy, "https": proxy}
    return client


def pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return {name: value} of those of pip's SETTINGS that the user has set. Environment variables (PIP_INDEX_URL)
    override config files, later config files override earlier ones. Raises InputError if a file is not valid."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = lambda optionstr: optionstr.lower().replace("_", "-")
    try:
        parser.read(map(str, config_files(environment)), encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise InputError(f"pip's settings cannot be read: {' '.join(str(error).split())}. Correct the file.") from error
    found = {}
    for section in filter(parser.has_section, SECTIONS):
        found |= parser.items(section)
    found |= {name: environment.get(f"PIP_{name.upper().replace('-', '_')}") or found.get(name) for name in SETTINGS}
    return {name: found[name] for name in SETTINGS if found[name]}


def config_files(environment: Mapping[str, str]) -> list[Path]:
    """Return the paths of pip's config files by ascending priority: global, user, this environment, PIP_CONFIG_FILE."""
    chosen = environment.get("PIP_CONFIG_FILE", "")
    if chosen == os.devnull:
        return []
    home = Path(environment.get("HOME") or Path.home())
    users = [home / ".pip/pip.conf", Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"]
    if sys.platform == "darwin":
        shared = [Path("/Library/Application Support/pip/pip.conf")]
        users.append(home / "Library/Application Support/pip/pip.conf")
    else:
        folders = (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
        shared = [*(Path(folder) / "pip/pip.conf" for folder in reversed(folders)), Path("/etc/pip.conf")]
    if Path(chosen).is_file():  # pip ignores the user's files if PIP_CONFIG_FILE exists
        users = []
    return [*shared, *users, Path(sys.prefix) / "pip.conf", *([Path(chosen)] if chosen else [])]

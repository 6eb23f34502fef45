"""Files of the package index that this machine's pip uses, each pinned by its SHA-256 and kept in the user's cache.

pip cannot download them: it runs the code of a source distribution to do so, and an environment that uv made has no
pip. uv does not read pip's settings. So pip's rules are followed here (its documentation, "Configuration").
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
"""Of pip's files; a command's section wins over [global], in whatever file it is."""
YES = ("1", "true", "t", "yes", "y", "on")
"""How pip reads a switch."""
TIMEOUT_SECONDS = (10.0, 30.0)
"""To connect, and between two pieces of an answer."""
PAUSES_SECONDS = (1.0, 3.0)
"""Before the second and the third try."""


@dataclass(frozen=True)
class PackageFile(Config):
    """One file of a project on the package index, pinned so that no other can take its place."""

    project: str
    """Its name on the package index."""
    version: str
    """Release of the project."""
    name: str
    """The file's name: a wheel (.whl) or a source distribution (.tar.gz)."""
    sha256: str
    """Its SHA-256, 64 hexadecimal digits in lower case."""

    def __post_init__(self):
        super().__post_init__()
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise UsageError(
                f"sha256 of the package {self.project} is {self.sha256!r}; give 64 hexadecimal digits in lower case."
            )
        if "/" in self.name or not self.name.endswith((".whl", ".tar.gz")):
            raise UsageError(
                f"The file of the package {self.project} is {self.name!r}; give the name of a .whl or .tar.gz."
            )


def package_cache() -> Path:
    """The folder of downloaded package files, shared by all runs of this user."""
    return user_cache(os.environ) / "packages"


def fetch_package(file: PackageFile, progress: Callable[[str], None] = print) -> Path:
    """Download `file` to the user's cache unless it is there, and return its path.

    Raises InputError if the index cannot be reached, lacks the file or sends another one, or if the cache cannot be
    written.
    """
    path = package_cache() / file.name
    try:
        if path.is_file() and file_sha256(path) == file.sha256:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path, scratch=path.parent) as partial:
            download(file, partial, progress)
    except OSError as error:
        raise InputError(
            f"{path} cannot be fetched or written: {error.strerror or error}. Make room on the disk, correct the "
            f"permissions of {path.parent}, or choose another cache folder by XDG_CACHE_HOME."
        ) from error
    return path


def download(file: PackageFile, partial: Path, progress: Callable[[str], None]) -> None:
    """Stream the file to `partial` and verify its hash, with a few tries. Raises InputError as `fetch_package`."""
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
                # The index's own hash is replaced: only the pin is trusted.
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
                    f"{file.name} from {index.endpoint} is not the pinned file, and was deleted.\n"
                    f"  SHA-256 pinned:   {file.sha256}\n  SHA-256 received: {error.actual_digest}\n"
                    "Find out which is right before changing the pin: the index, or something on the way, may be lying."
                ) from error
            except RequestException as error:
                if pause is None:
                    raise InputError(
                        f"{file.name} cannot be fetched from the package index {index.endpoint}: "
                        f"{network_reason(error)}.\nCheck the network and pip's settings (PIP_INDEX_URL, PIP_CERT, "
                        f"PIP_PROXY). Or put the file, with SHA-256 {file.sha256}, at {package_cache() / file.name}. "
                        "Then give the same command again."
                    ) from error
                progress(f"{file.name}: {network_reason(error)}; trying again in {pause:g} s")
                time.sleep(pause)
            except (UnsupportedContentTypeError, UnsupportedRepoVersionError, ValueError) as error:
                raise InputError(
                    f"{index.endpoint} does not answer as a package index does: {error}. Correct the address "
                    "(PIP_INDEX_URL or pip's index-url: it commonly ends in /simple)."
                ) from error


def index_client(settings: Mapping[str, str]) -> "PyPISimple":
    """A client of pip's index, with its login, certificates and proxy. Raises InputError if pip may ask no index."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple
    from requests.auth import HTTPBasicAuth
    from requests.utils import get_auth_from_url, urldefragauth

    if settings.get("no-index", "").strip().lower() in YES:
        raise InputError(
            f"pip's settings forbid to ask a package index: no-index is {settings['no-index'].strip()} (PIP_NO_INDEX "
            "or pip's files). Remove that, or give your own files (pages.warc, pages.tables)."
        )
    url = settings.get("index-url", "").strip() or PYPI_SIMPLE_ENDPOINT
    client = PyPISimple(urldefragauth(url))  # no message shows a password
    host = client.endpoint.split("/")[2:3]

    class IndexLogin(HTTPBasicAuth):
        """Shows the login to the index's own host only: files may be on another."""

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
        client.s.verify = certificates  # REQUESTS_CA_BUNDLE, which requests reads itself, wins, as it does in pip
    client.s.cert = settings.get("client-cert")
    if proxy := settings.get("proxy"):
        client.s.proxies = {"http": proxy, "https": proxy}
    return client


def pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of SETTINGS that are set: environment variables win over files, later files over earlier ones.

    Raises InputError for a file that cannot be parsed, as pip does.
    """
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
    """pip's files, weakest first: those of all users, the user's, this environment's, and PIP_CONFIG_FILE."""
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
    if Path(chosen).is_file():  # pip leaves the user's files out when another is named
        users = []
    return [*shared, *users, Path(sys.prefix) / "pip.conf", *([Path(chosen)] if chosen else [])]

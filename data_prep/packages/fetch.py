"""Fetching one pinned file of a package from the machine's own package index, verified by its SHA-256, into a cache."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from data_prep.packages.pip_settings import PipSettings, read_pip_settings
from lm.errors import InputError, network_reason
from lm.storage import appearing, file_sha256, user_cache

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage, PyPISimple

TIMEOUT_SECONDS = (10.0, 30.0)  # to connect, and between two pieces of an answer
PAUSES_SECONDS = (1.0, 3.0)  # before the second and the third try


class PackagePin(Protocol):
    """One file of the package index and what it must be: PackagePages, PackageLists."""

    @property
    def name(self) -> str: ...  # the project

    @property
    def version(self) -> str: ...

    @property
    def file_name(self) -> str: ...

    @property
    def sha256(self) -> str: ...  # 64 hexadecimal digits in lower case


def package_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of downloaded package files, shared by all runs of this user."""
    return user_cache(environment) / "packages"


def fetch_package(
    pin: PackagePin,
    cache: Path,
    settings: PipSettings | None = None,
    progress: Callable[[str], None] = print,
    pauses_seconds: tuple[float, ...] = PAUSES_SECONDS,
) -> Path:
    """The pinned file, with the pinned SHA-256, in `cache`; downloaded when it is not there.

    Tries again after each pause when the index does not answer or breaks off. Raises InputError when the index cannot
    be reached, has no such project or file, gives a file with another hash (which is deleted), or the cache cannot be
    written.
    """
    path = cache / pin.file_name
    try:
        if path.is_file():
            if file_sha256(path) == pin.sha256:
                return path
            path.unlink()
        cache.mkdir(parents=True, exist_ok=True)
        with appearing(path, scratch=cache) as partial:
            download(pin, partial, path, settings or read_pip_settings(), progress, pauses_seconds)
    except OSError as error:
        raise InputError(
            f"{path} cannot be fetched or written: {error.strerror or error}. Make room on the disk, mend the "
            f"permissions of {cache}, or choose another cache folder by XDG_CACHE_HOME."
        ) from error
    return path


def download(
    pin: PackagePin,
    partial: Path,
    path: Path,
    settings: PipSettings,
    progress: Callable[[str], None],
    pauses_seconds: tuple[float, ...],
) -> None:
    """Streams the pinned file to `partial`, its hash verified. Raises InputError as `fetch_package` does."""
    from pypi_simple import DigestMismatchError
    from requests import RequestException

    with index_client(settings) as client:
        for pause in (*pauses_seconds, None):
            try:
                listed = find_file(client, pin)
                # The pin's hash takes the place of the index's own: only the pin is trusted.
                pinned = dataclasses.replace(listed, digests={"sha256": pin.sha256})
                started = time.perf_counter()
                client.download_package(pinned, partial, timeout=TIMEOUT_SECONDS)
                megabytes, seconds = partial.stat().st_size / 1e6, time.perf_counter() - started
                progress(f"downloaded {pin.file_name}: {megabytes:.1f} MB in {seconds:.1f} s")
                return
            except DigestMismatchError as error:
                raise InputError(
                    f"{pin.file_name} from {client.endpoint} is not the pinned file, and was deleted.\n"
                    f"  SHA-256 pinned:   {pin.sha256}\n  SHA-256 received: {error.actual_digest}\n"
                    "Find out which is right before changing the pin: the index, or something on the way, may be lying."
                ) from error
            except RequestException as error:
                if pause is None or not worth_another_try(error):
                    refuse_index(client.endpoint, error, pin, path)
                progress(f"{pin.file_name}: {network_reason(error)}; trying again in {pause:g} s")
                time.sleep(pause)


def index_client(settings: PipSettings) -> "PyPISimple":
    """A client of the index that pip uses: same address, login, certificates and proxy."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple
    from requests.auth import HTTPBasicAuth

    client = PyPISimple(settings.index_url or PYPI_SIMPLE_ENDPOINT)
    host = client.endpoint.split("/")[2:3]

    class IndexLogin(HTTPBasicAuth):
        """Shows the login to the index's own host only: files may lie on another."""

        def __call__(self, r):
            return super().__call__(r) if (r.url or "").split("/")[2:3] == host else r

    if settings.login:
        client.s.auth = IndexLogin(*settings.login)
    if settings.certificates and not Path(settings.certificates).exists():
        raise InputError(
            f"pip's certificates (PIP_CERT, or cert in its files) should be {settings.certificates}: no such file. "
            "Mend the setting."
        )
    if settings.certificates:  # REQUESTS_CA_BUNDLE is honoured by requests itself, and wins, as it does in pip
        client.s.verify = settings.certificates
    if settings.client_certificate:
        client.s.cert = settings.client_certificate
    if settings.proxy:
        client.s.proxies = {"http": settings.proxy, "https": settings.proxy}
    return client


def find_file(client: "PyPISimple", pin: PackagePin) -> "DistributionPackage":
    """The index's entry for the pinned file. Raises InputError without one, RequestException without an answer."""
    from pypi_simple import NoSuchProjectError, UnsupportedContentTypeError, UnsupportedRepoVersionError
    from requests import RequestException

    try:
        page = client.get_project_page(pin.name, timeout=TIMEOUT_SECONDS)
    except RequestException:
        raise
    except NoSuchProjectError as error:
        raise InputError(
            f"The package index {client.endpoint} has no project {pin.name}. Mend the name, or point pip to an index "
            "that has it (PIP_INDEX_URL)."
        ) from error
    except (UnsupportedContentTypeError, UnsupportedRepoVersionError, ValueError) as error:
        raise InputError(
            f"{client.endpoint} does not answer as a package index does: {error}. Mend the address (PIP_INDEX_URL or "
            "pip's index-url: it commonly ends in /simple)."
        ) from error
    for listed in page.packages:
        if listed.filename == pin.file_name:
            return listed
    known = [listed.filename for listed in page.packages if listed.version == pin.version]
    raise InputError(
        f"The package index {client.endpoint} has no file {pin.file_name} of {pin.name}. "
        f"Of version {pin.version} it has: {', '.join(known) or 'nothing'}. Mend the pin, or PIP_INDEX_URL."
    )


def worth_another_try(error: Exception) -> bool:
    """Whether the same request may succeed later: no answer, a broken answer, a server's own error or a full queue."""
    from requests import ConnectionError, HTTPError, Timeout
    from requests.exceptions import ChunkedEncodingError, SSLError

    if isinstance(error, HTTPError):
        return error.response is not None and (error.response.status_code >= 500 or error.response.status_code == 429)
    return isinstance(error, (ConnectionError, Timeout, ChunkedEncodingError)) and not isinstance(error, SSLError)


def refuse_index(endpoint: str, error: Exception, pin: PackagePin, path: Path) -> NoReturn:
    raise InputError(
        f"{pin.file_name} cannot be fetched from the package index {endpoint}: {network_reason(error)}.\n"
        "Check the network and pip's settings (PIP_INDEX_URL, PIP_CERT, PIP_PROXY). Or put the file, with SHA-256 "
        f"{pin.sha256}, at {path}. Then give the same command again."
    ) from error

"""Let Orbax and TensorStore read and write checkpoints on s3:// and gs://.

Orbax reads and writes small files through etils' paths, which use fsspec: `Bucket` is that file system. It leaves
arrays to TensorStore, which gets their location from `build`: Orbax does not support s3:// and sets no retries.
"""

import functools
import io
import os
from typing import Any, ClassVar

import fsspec
from etils import epath  # what Orbax takes for a path
from orbax.checkpoint._src.serialization import tensorstore_utils

from lm.storage import Place, Url, objects

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
GOOGLE = {
    "TENSORSTORE_GCS_HTTP_URL": ("GOOGLE_BASE_URL",),
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": ("GOOGLE_BEARER_TOKEN",),
    "GOOGLE_APPLICATION_CREDENTIALS": ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"),
}
"""{environment variable of TensorStore: obstore's variables for the same setting}."""
RETRIES = {"max_retries": 32, "initial_delay": "100ms", "max_delay": "15s"}
COALESCED = {
    "experimental_read_coalescing_threshold_bytes": 1_000_000,
    "experimental_read_coalescing_merged_bytes": 500_000_000_000,
    "experimental_read_coalescing_interval": "1ms",
}
"""TensorStore's settings to read neighboring byte ranges by one request, as Orbax sets them for gs://."""
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


def orbax_path(place: Place) -> epath.Path:
    """Return a file or folder as Orbax's path type."""
    if isinstance(place, Url):
        register()
        return epath.Path(place.address)
    return epath.Path(place.resolve())


def kvstore_spec(place: Place) -> dict[str, Any]:
    """Return TensorStore's JSON spec of a folder as a key-value store."""
    if not isinstance(place, Url):
        return {"driver": "file", "path": f"{place.resolve()}/"}
    scheme, bucket, key = objects.split(place.address)
    if scheme == "gs":
        return {"driver": "gcs", "bucket": bucket, "path": f"{key}/", "gcs_request_retries": RETRIES}
    spec: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": f"{key}/", "s3_request_retries": RETRIES}
    for name, variables in {"endpoint": ENDPOINTS, "aws_region": REGIONS}.items():
        if given := next((os.environ[one] for one in variables if os.environ.get(one)), ""):
            spec[name] = given
    if os.environ.get("AWS_ACCESS_KEY_ID"):  # else TensorStore first reads, and complains of, files in ~/.aws
        spec["aws_credentials"] = {"type": "environment"}
    return spec


class Bucket(fsspec.AbstractFileSystem):
    """fsspec's file system for Orbax's small files, through lm.storage with its settings and retries."""

    scheme: ClassVar[str]

    def address(self, path: str) -> str:
        return f"{self.scheme}://{self._strip_protocol(path)}"

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """List the direct children. Raises FileNotFoundError if there are none."""
        folder = self._strip_protocol(path)
        found = objects.children(self.address(path))
        if not found:
            raise FileNotFoundError(2, "No such folder", self.address(path))
        entry = lambda one: {"type": "file", "size": one.size} if one else {"type": "directory", "size": 0}
        entries = [{"name": f"{folder}/{name}", **entry(one)} for name, one in found.items()]
        return entries if detail else [one["name"] for one in entries]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        if one := objects.head(self.address(path)):
            return {"name": self._strip_protocol(path), "type": "file", "size": one.size}
        self.ls(path)
        return {"name": self._strip_protocol(path), "type": "directory", "size": 0}

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        below = objects.listing(self.address(path)) if recursive else ()
        objects.delete([self.address(path), *(f"{self.address(path)}/{name}" for name in below)])

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Do nothing: a store has no folders."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: a store has no folders."""

    def _open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> io.BytesIO:
        return Written(self.address(path)) if "w" in mode else io.BytesIO(objects.read(self.address(path)))


class Written(io.BytesIO):
    """A file that is uploaded as one object when it is closed."""

    def __init__(self, address: str):
        super().__init__()
        self.address = address

    def close(self) -> None:
        if not self.closed:
            objects.upload(self.getvalue(), self.address)
        super().close()


@functools.cache
def register() -> None:
    """Register s3:// and gs:// with fsspec and Orbax, once per process."""
    for scheme, protocol in {"s3": "s3", "gs": "gcs"}.items():
        named = type(f"Bucket_{scheme}", (Bucket,), {"scheme": scheme, "protocol": (protocol, scheme)})
        fsspec.register_implementation(protocol, named, clobber=True)

    for theirs, ours in GOOGLE.items():
        if given := next((os.environ[one] for one in ours if os.environ.get(one)), ""):
            os.environ.setdefault(theirs, given)
    by_orbax = tensorstore_utils.build_kvstore_tspec

    def build(directory: str, name: str | None = None, **options: Any) -> dict[str, Any]:
        """Orbax's spec of a folder, with the objects of a bucket instead of files on a disk."""
        scheme, found, rest = directory.partition(":/")
        if not found or scheme not in objects.SCHEMES:
            return by_orbax(directory, name, **options)

        def moved(spec: Any) -> Any:
            if not isinstance(spec, dict):
                return spec
            if spec.get("driver") == "file":
                bucket, _, path = spec["path"].lstrip("/").partition("/")
                return kvstore_spec(Url(f"{scheme}://{bucket}")) | {"path": path}
            changed = {one: moved(value) for one, value in spec.items()}
            return changed | COALESCED if spec.get("driver") == "ocdbt" else changed

        return moved(by_orbax("/" + rest.lstrip("/"), name, **options))

    setattr(tensorstore_utils, by_orbax.__name__, build)

"""The demo's web pages: files of the package index that hold them, pinned by name, version and SHA-256."""

from data_prep.config import PackagePages

PACKAGES: tuple[PackagePages, ...] = ()

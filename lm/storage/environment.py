"""Environment variables of storage clients, for processes on other machines.

Only these are passed on. Files that a variable names (AWS_WEB_IDENTITY_TOKEN_FILE, GOOGLE_APPLICATION_CREDENTIALS),
roles of a machine or a pod, proxies and cache folders belong to each machine. So a driver that has no keys leaves the
credentials to the machines' own roles, which are renewed while a job runs.
"""

import os
from collections.abc import Mapping

from lm.storage import objects

SETTINGS = (
    "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SKIP_SIGNATURE",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AWS_REQUEST_PAYER", "AWS_REQUESTER_PAYS", "AWS_UNSIGNED_PAYLOAD",
    "AWS_CHECKSUM_ALGORITHM", "AWS_S3_EXPRESS", "AWS_CONDITIONAL_PUT", "AWS_COPY_IF_NOT_EXISTS", "AWS_DISABLE_TAGGING",
    "AWS_DISABLE_BULK_DELETE", "AWS_SERVER_SIDE_ENCRYPTION", "AWS_SSE_KMS_KEY_ID", "AWS_SSE_BUCKET_KEY_ENABLED",
    "GOOGLE_BASE_URL", "GOOGLE_SKIP_SIGNATURE", "HF_ENDPOINT", "GRISTMILL_STORAGE_TIMEOUT", "GRISTMILL_STORAGE_RETRIES",
)  # fmt: skip
"""Addresses and settings: passed on if they are set."""
KEYS = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN"),
    ("AWS_SSE_CUSTOMER_KEY_BASE64",),
    ("GOOGLE_SERVICE_ACCOUNT_KEY",),
    ("GOOGLE_BEARER_TOKEN",),
    ("HF_TOKEN",),
)
"""Secrets, which are never printed: a group is passed on whole if one of it is set, so that no key of another machine
stays next to one of this machine."""
OF_THE_MACHINE = (
    "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_STS_ENDPOINT", "AWS_IMDSV1_FALLBACK",
    "AWS_METADATA_ENDPOINT", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
)  # fmt: skip
"""Not passed on: files and servers of one machine."""


def environment_of_storage() -> dict[str, str | None]:
    """{name: value} for `set_environment` in another process; None: to be unset."""
    given = {name: os.environ[name] for name in SETTINGS if name in os.environ}
    groups = [group for group in KEYS if any(name in os.environ for name in group)]
    return given | {name: os.environ.get(name) for group in groups for name in group}


def set_environment(values: Mapping[str, str | None]) -> None:
    """Set these environment variables; None unsets one. If that changes any value, clients of stores are created
    again."""
    if all(os.environ.get(name) == value for name, value in values.items()):
        return
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    objects.store.cache_clear()

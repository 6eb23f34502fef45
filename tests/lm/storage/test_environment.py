"""Variables of stores that are passed to other machines: all that the clients read; keys are passed together."""

import re
from pathlib import Path

import obstore

from lm.storage import environment_of_storage, objects, set_environment
from tests.object_store import variables

NOT_SET_HERE = {"AWS_BUCKET", "AWS_BUCKET_NAME", "GOOGLE_BUCKET", "GOOGLE_BUCKET_NAME"}
"""The address names the bucket."""
OF_THE_MACHINE = (
    "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_STS_ENDPOINT", "AWS_IMDSV1_FALLBACK",
    "AWS_METADATA_ENDPOINT", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
)  # fmt: skip
"""Not passed on: files and servers of one machine."""


def test_each_variable_of_the_clients_is_passed_on_or_listed_as_specific_to_the_machine():
    stubs = [path.read_text() for path in Path(obstore.__file__).parent.rglob("*.pyi")]
    read = {name for text in [*stubs, Path(objects.__file__).read_text()]
            for name in re.findall(r"\b(?:AWS|GOOGLE|GRISTMILL_STORAGE)_[A-Z][A-Z_0-9]+", text)}  # fmt: skip
    listed = [*objects.SETTINGS, *OF_THE_MACHINE, *(name for group in objects.KEYS for name in group)]
    assert len(read) > 30 and read - NOT_SET_HERE - {*listed} == set() and len(listed) == len(set(listed))


def test_keys_are_passed_together_or_left_to_the_machine_if_the_driver_has_none(monkeypatch):
    for name in [*objects.SETTINGS, *(one for group in objects.KEYS for one in group)]:
        monkeypatch.delenv(name, raising=False)
    with variables({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "r", "AWS_ROLE_ARN": "x"}):
        told = environment_of_storage()
    assert told == {
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": None, "AWS_TOKEN": None,
        "AWS_REGION": "r",
    }  # fmt: skip
    with variables({"AWS_ACCESS_KEY_ID": "of the node", "AWS_SESSION_TOKEN": "of the node"}):
        set_environment(told)
        assert environment_of_storage() == told
        set_environment(environment_of_storage())
    with variables({"AWS_REGION": "r"}):
        told = environment_of_storage()
    with variables({"AWS_ACCESS_KEY_ID": "of the node"}):
        set_environment(told)
        assert environment_of_storage()["AWS_ACCESS_KEY_ID"] == "of the node"

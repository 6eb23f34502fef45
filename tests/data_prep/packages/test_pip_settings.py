"""pip's settings are read where pip reads them, in its order of precedence."""

import os
import shutil
import subprocess

import pytest

from data_prep.packages.pip_settings import read_pip_settings
from lm.errors import InputError


def environment(folder, **more: str) -> dict[str, str]:
    """Nothing of this machine's own user."""
    return {
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CONFIG_DIRS": str(folder / "xdg"),
        **more,
    }


def write(path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_later_files_win_and_the_environment_wins_over_all(tmp_path):
    write(tmp_path / "xdg/pip/pip.conf", "[global]\nindex-url = http://shared.example/simple\n")
    write(tmp_path / ".pip/pip.conf", "[global]\nindex_url = http://old.example/simple\ncert = /old.pem\n")
    assert read_pip_settings(environment(tmp_path)).index_url == "http://old.example/simple"
    write(tmp_path / "config/pip/pip.conf", "[global]\nindex-url = http://user.example/simple\n")
    settings = read_pip_settings(environment(tmp_path))
    assert (settings.index_url, settings.certificates) == ("http://user.example/simple", "/old.pem")
    settings = read_pip_settings(environment(tmp_path, PIP_INDEX_URL="http://env.example/", PIP_CERT="/env.pem"))
    assert (settings.index_url, settings.certificates) == ("http://env.example/", "/env.pem")


def test_a_named_file_takes_the_place_of_the_users(tmp_path):
    write(
        tmp_path / "config/pip/pip.conf", "[global]\nindex-url = http://user.example/\nproxy = http://proxy.example\n"
    )
    named = write(tmp_path / "named.conf", "[install]\nindex-url = http://named.example/\n")
    settings = read_pip_settings(environment(tmp_path, PIP_CONFIG_FILE=named))
    assert settings.index_url == "http://named.example/"
    assert settings.proxy != "http://proxy.example"


def test_a_commands_section_wins_over_the_global_one_of_a_later_file(tmp_path):
    write(tmp_path / "xdg/pip/pip.conf", "[download]\nindex-url = http://download.example/\n[install]\ncert = /i.pem\n")
    write(tmp_path / "config/pip/pip.conf", "[global]\nindex-url = http://user.example/\ncert = /user.pem\n")
    settings = read_pip_settings(environment(tmp_path))
    assert (settings.index_url, settings.certificates) == ("http://download.example/", "/i.pem")
    write(tmp_path / "config/pip/pip.conf", "[download]\nindex-url = http://user.example/\n")
    assert read_pip_settings(environment(tmp_path)).index_url == "http://user.example/"


@pytest.mark.parametrize("value", ["1", "true", "Yes", "on"])
def test_no_index_is_honoured(tmp_path, value):
    with pytest.raises(InputError, match=f"no-index is {value}"):
        read_pip_settings(environment(tmp_path, PIP_NO_INDEX=value))
    write(tmp_path / "config/pip/pip.conf", f"[global]\nno-index = {value}\n")
    with pytest.raises(InputError, match=f"no-index is {value}"):
        read_pip_settings(environment(tmp_path))
    for off in ("0", "false", "no", "off"):  # and the environment wins over the file here too
        read_pip_settings(environment(tmp_path, PIP_NO_INDEX=off))


def test_os_devnull_turns_files_off_and_garbage_is_passed_over(tmp_path):
    write(tmp_path / "config/pip/pip.conf", "[global]\nindex-url = http://user.example/\n")
    assert read_pip_settings(environment(tmp_path, PIP_CONFIG_FILE=os.devnull)).index_url is None
    write(tmp_path / "config/pip/pip.conf", "no section\n= = =\n")
    read_pip_settings(environment(tmp_path))


def test_a_login_is_taken_out_of_the_address(tmp_path):
    settings = read_pip_settings(environment(tmp_path, PIP_INDEX_URL="https://me:p%40ss@index.example:8443/simple/"))
    assert settings.index_url == "https://index.example:8443/simple/"
    assert settings.login == ("me", "p@ss")


def test_the_same_as_pip_itself_says(tmp_path):
    pip = shutil.which("pip")
    if pip is None:
        pytest.skip("no pip on PATH")
    write(tmp_path / "config/pip/pip.conf", "[global]\nindex-url = http://user.example/simple\n")
    variables = environment(tmp_path, PATH=os.environ["PATH"])
    command = [pip, "config", "get", "global.index-url"]
    said = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip()
    assert read_pip_settings(variables).index_url == said

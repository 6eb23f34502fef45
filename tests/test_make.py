"""The Makefile's environments: one lock for each accelerator, every package checked by its hash, .venv rebuilt for
another accelerator."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_house import FILES, REPOSITORY

ACCELERATORS = ("tpu", "cuda12", "cuda13")
# A stand-in for uv, which would download: it records its arguments, and creates a .venv with a Python that does
# nothing.
UV = f"""#!{sys.executable}
import json, sys
from pathlib import Path
with open("calls", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if "--target" in sys.argv:
    Path(".tools/bin").mkdir(parents=True)
    Path(".tools/bin/uv").write_text(Path(sys.argv[0]).read_text())
    Path(".tools/bin/uv").chmod(0o755)
if sys.argv[-1] == "-":
    Path("stdin").write_text(sys.stdin.read())
if sys.argv[1] == "venv":
    Path(".venv/bin").mkdir(parents=True)
    Path(".venv/bin/python").write_text("#!/bin/sh\\n")
    Path(".venv/bin/python").chmod(0o755)
if Path("fail").exists() and sys.argv[1:3] == ["pip", "sync"]:
    sys.exit(1)
"""


def pins(name: str) -> dict[str, str]:
    """{package: version} of a lock."""
    found = re.findall(r"^([\w.-]+)==(\S+)", (REPOSITORY / name).read_text(), re.MULTILINE)
    return dict(found)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Run make in a copy; return (exit code, its output, the locks that an environment was built from or [])."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for lock in REPOSITORY.glob("requirements*.lock"):
        (tmp_path / lock.name).touch()
    (tmp_path / "requirements.lock").write_text(
        "setuptools==84 \\\n    --hash=sha256:5\nsix==1 \\\n    --hash=sha256:6\n"
    )
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uv").write_text(UV)
    (tmp_path / "bin/uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    monkeypatch.delenv("ACCELERATOR", raising=False)

    def make(*words: str) -> tuple[int, str, list[str]]:
        (tmp_path / "calls").write_text("")
        done = subprocess.run(["make", "--no-print-directory", *words], cwd=tmp_path, capture_output=True, text=True)
        calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
        synced = [call for call in calls if call[:2] == ["pip", "sync"]]
        for call in calls:
            assert call[0] != "pip" or "--editable" in call or "--require-hashes" in call, call
            assert call[0] != "pip" or {"--offline", "--no-build", "--no-build-isolation"} & set(call), call
        locks = [word for call in synced for word in call if word.endswith(".lock")]
        return done.returncode, done.stdout + done.stderr, locks

    return make


def test_the_default_environment_is_for_cpus_and_is_kept(make):
    assert make("setup")[::2] == (0, ["requirements.lock"])
    assert make("lint")[::2] == (0, [])


@pytest.mark.fast_rows
@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_an_accelerator_is_kept_until_another_is_requested(make, accelerator):
    with_it = ["requirements.lock", f"requirements-{accelerator}.lock"]
    assert make("setup")[::2] == (0, ["requirements.lock"])
    assert make("setup", f"ACCELERATOR={accelerator}")[::2] == (0, with_it)
    assert make("test")[::2] == (0, [])  # in the same environment
    assert make("setup", "ACCELERATOR=cpu")[::2] == (0, ["requirements.lock"])


def test_a_config_of_any_name_is_passed_on(make, tmp_path):
    make("setup")
    (tmp_path / ".venv/bin/python").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    for config in ("my config.py", "my \"odd\" $$HOME 'config'.py"):
        _, said, _ = make("demo", f"CONFIG={config}")
        assert said.splitlines() == ["-m", "launch.pretrain", config.replace("$$", "$")]


def test_another_lock_rebuilds_the_environment_of_its_accelerator(make, tmp_path):
    make("setup", "ACCELERATOR=tpu")
    later = (tmp_path / ".venv/ready-tpu").stat().st_mtime + 5
    os.utime(tmp_path / "requirements-cuda12.lock", (later, later))
    assert make("setup")[2] == []
    os.utime(tmp_path / "requirements-tpu.lock", (later, later))
    assert make("lint")[2] == ["requirements.lock", "requirements-tpu.lock"]


def test_a_failed_environment_is_built_again(make, tmp_path):
    (tmp_path / "fail").touch()
    assert make("setup", "ACCELERATOR=tpu")[0] == 2
    (tmp_path / "fail").unlink()
    assert make("setup", "ACCELERATOR=tpu")[::2] == (0, ["requirements.lock", "requirements-tpu.lock"])


@pytest.mark.parametrize("wrong", ["gpu", "cpu tpu", "", "cuda%", "TPU"])
def test_an_unknown_accelerator_is_rejected_with_the_available_ones(make, tmp_path, wrong):
    code, said, locks = make("setup", f"ACCELERATOR={wrong}")
    assert code == 2 and locks == [] and not (tmp_path / ".venv").exists()
    assert f'ACCELERATOR is "{wrong}". Choose one of: cpu tpu cuda12 cuda13' in said


def test_additional_locks_have_the_same_jax_and_no_duplicates():
    base = pins("requirements.lock")
    for accelerator in ACCELERATORS:
        added = pins(f"requirements-{accelerator}.lock")
        assert added and not set(added) & set(base)
        assert {version for name, version in added.items() if name.startswith("jax")} <= {base["jax"]}
    assert list(pins("requirements-tpu.lock")) == ["libtpu"]


def test_locks_have_a_hash_for_every_package_and_no_address_of_an_index():
    for lock in REPOSITORY.glob("requirements*.lock"):
        entries = re.split(r"\n(?=\S)", lock.read_text().strip())
        for entry in entries:
            assert re.match(r"[\w.\[\]-]+==\S+", entry) and "--hash=sha256:" in entry, f"{lock.name}: {entry[:80]}"
            assert "://" not in entry and "index-url" not in entry


def test_every_accelerator_has_an_extra_and_a_lock():
    said = (REPOSITORY / "Makefile").read_text()
    (listed,) = re.findall(r"^ACCELERATORS := cpu (.+)$", said, re.MULTILINE)
    assert tuple(listed.split()) == ACCELERATORS
    for accelerator in ACCELERATORS:
        assert f'{accelerator} = ["jax[{accelerator}]"' in (REPOSITORY / "pyproject.toml").read_text()


PLATFORMS = {
    "x86_64-manylinux_2_31": ("cuda12", "cuda13", "tpu"),
    "aarch64-manylinux_2_28": ("cuda12", "cuda13"),
    "aarch64-apple-darwin": (),
}
"""{a platform in docs/cloud.md: the accelerators that it supports}. libtpu only has wheels for Linux x86_64."""
BUILT = ("promise", "rouge-score", "sqlitedict", "word2number")
"""Packages of requirements.lock without a wheel: built here from a source distribution."""


def uv(*words: str, cwd: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess:
    command = [str(REPOSITORY / ".tools/bin/uv"), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ | environment)


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.12", "3.13"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_locks_resolve_to_wheels_on_every_platform(platform, python, tmp_path):
    """Needs the package index, as `make setup` does."""
    uv("venv", "--quiet", "--no-project", "--python", sys.executable, str(tmp_path / "venv"))
    only_wheels = ["--only-binary", ":all:", *(word for name in BUILT for word in ("--no-binary", name))]
    done = uv(
        "pip", "sync", "--dry-run", "--require-hashes", "--python", str(tmp_path / "venv/bin/python"), *only_wheels,
        "--python-platform", platform, "--python-version", python, "requirements.lock",
        *(f"requirements-{accelerator}.lock" for accelerator in PLATFORMS[platform]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_source_distributions_are_built_by_the_locked_setuptools_or_not_at_all(tmp_path):
    """Needs the package index. Without the locked setuptools in the environment a build fails; it downloads nothing."""
    entries = re.split(r"\n(?=\S)", (REPOSITORY / "requirements.lock").read_text())
    wanted = [entry for entry in entries if entry.partition("==")[0] in (*BUILT, "setuptools", "six")]
    assert len(wanted) == len(BUILT) + 2
    (tmp_path / "all.lock").write_text("\n".join(wanted))
    (tmp_path / "setuptools.lock").write_text(next(one for one in wanted if one.startswith("setuptools")))
    python, cache = str(tmp_path / "venv/bin/python"), str(tmp_path / "cache")
    uv("venv", "--quiet", "--no-project", "--python", sys.executable, str(tmp_path / "venv"))
    strict = ("--require-hashes", "--no-build-isolation", "--python", python)
    refused = uv("pip", "sync", *strict, str(tmp_path / "all.lock"), UV_CACHE_DIR=cache)
    assert refused.returncode and "No module named 'setuptools'" in refused.stderr
    assert uv("pip", "install", *strict, "-r", str(tmp_path / "setuptools.lock"), UV_CACHE_DIR=cache).returncode == 0
    done = uv("pip", "sync", *strict, str(tmp_path / "all.lock"), UV_CACHE_DIR=cache)
    assert done.returncode == 0, done.stderr


def test_setuptools_for_builds_comes_from_the_lock_before_all_else(make, tmp_path):
    make("setup")
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    kinds = [" ".join(call[:2]) if call[0] == "pip" else call[0] for call in calls]
    assert kinds == ["pip install", "venv", "pip install", "pip sync", "pip install"]
    assert (tmp_path / "stdin").read_text().split()[0] == "setuptools==84" and "six" not in (
        tmp_path / "stdin"
    ).read_text()
    assert calls[0][-1] == "requirements-uv.lock" and calls[-1][-2:] == ["--editable", "."]


@pytest.mark.slow
def test_a_uv_with_another_hash_is_not_installed(make, tmp_path):
    """By pip, from the package index; the fake uv is removed from PATH."""
    (tmp_path / "bin/uv").unlink()
    path = os.pathsep.join(one for one in os.environ["PATH"].split(os.pathsep) if not Path(one, "uv").exists())
    lock = re.sub(r"sha256:\w{64}", "sha256:" + "0" * 64, (REPOSITORY / "requirements-uv.lock").read_text())
    (tmp_path / "requirements-uv.lock").write_text(lock)
    code, said, _ = make("setup", f"PATH={path}")
    assert code == 2 and "DO NOT MATCH THE HASHES" in said and not (tmp_path / ".tools/bin/uv").exists()


def test_add_needs_a_name_and_keeps_locked_versions(make, tmp_path):
    make("setup")
    code, said, _ = make("add")
    assert code == 2 and "PACKAGE is empty. Name one: make add PACKAGE=tensorboard" in said


def test_remedies_install_into_the_environment_of_this_clone():
    """`.venv` has no pip, and uv is not on PATH."""
    pages = [*(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "README.md"]
    for path in [*FILES, *(page for page in pages if page.name != "recipes.md")]:  # an environment of peers
        assert not re.search(r"\bpip install\b", path.read_text()), path


def test_the_pinned_uv_builds_the_clone_itself(tmp_path):
    """Another version would download a build backend that no lock names."""
    (version,) = pins("requirements-uv.lock").values()
    low, high = re.findall(r'"uv_build>=([\d.]+),<([\d.]+)"', (REPOSITORY / "pyproject.toml").read_text())[0]
    assert [int(n) for n in low.split(".")] <= [int(n) for n in version.split(".")] < [int(n) for n in high.split(".")]


def test_the_clone_can_be_imported_from_any_folder(tmp_path):
    code = "import configs, data_prep, launch, lm, viewer; print(lm.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == REPOSITORY / "lm/__init__.py", done.stderr


def test_the_image_installs_the_pinned_packages_on_a_base_with_a_digest():
    said = (REPOSITORY / "launch/cloud/Dockerfile").read_text()
    assert re.search(r"^FROM \S+@sha256:[0-9a-f]{64}$", said, re.MULTILINE) and "pip install" not in said

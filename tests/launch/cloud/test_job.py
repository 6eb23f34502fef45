"""Laws of a job: what cannot run is refused before anything is paid for, and a dry run needs and changes nothing."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launch.cloud.job import NAME, parse_job, parser_of
from lm.errors import InputError, UsageError
from tests.launch.cloud.programs import REPOSITORY, Programs

CONFIG = "configs/gpt2_124m.py"
ACTIONS = {
    "tpu_vm": ("create state install run logs stop delete keep", ["--topology", "v6e:2x4", "--zone", "us-east5-b"]),
    "gke": ("image run logs delete", ["--topology", "h100:8", "--image", "registry.example/gristmill:1"]),
    "slurm": ("run logs stop", ["--topology", "h100:8"]),
    "skypilot": ("run logs stop", ["--topology", "h100:8"]),
}
BUCKET = ["--workdir", "gs://bucket/runs/a"]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def main(script: str, *words: str) -> None:
    importlib.import_module(f"launch.cloud.{script}").main(list(words))


def job_of(*words: str):
    return parse_job(parser_of("launch.cloud.x", "", {"run": "runs"}), [CONFIG, "run", *words])[0]


@pytest.mark.parametrize("script", ACTIONS)
def test_a_dry_run_of_every_action_needs_no_program_and_writes_no_file(script, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    before = set((REPOSITORY / "runs/cloud").glob("*"))
    actions, words = ACTIONS[script]
    for action in actions.split():
        main(script, CONFIG, action, *words, *BUCKET, "--dry-run")
        assert capsys.readouterr().out
    assert set((REPOSITORY / "runs/cloud").glob("*")) == before


@pytest.mark.parametrize("script", ACTIONS)
def test_a_program_that_is_not_here_is_named_with_how_to_install_it(script, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _, words = ACTIONS[script]
    with pytest.raises(UsageError, match=r"(gcloud|kubectl|sbatch|sky) is not installed here\. (Install|It is a part)"):
        main(script, str(REPOSITORY / CONFIG), "run", *words, *BUCKET)


@pytest.mark.parametrize("script", ACTIONS)
def test_what_a_program_refuses_ends_the_action(script, monkeypatch, tmp_path):
    programs = Programs(tmp_path, monkeypatch)
    for name in ("gcloud", "kubectl", "sbatch", "sky"):
        programs.add(name, "sys.exit(3)")
    monkeypatch.chdir(tmp_path)
    _, words = ACTIONS[script]
    with pytest.raises(InputError, match="ended with code 3"):
        main(script, str(REPOSITORY / CONFIG), "run", *words, *BUCKET)


def test_one_host_makes_the_whole_path_and_several_train():
    assert job_of("--topology", "v6e:2x4").script == "launch.pretrain"
    assert job_of("--topology", "v6e:4x4").script == "launch.train"


def test_the_command_has_the_options_as_they_were_given():
    job = job_of(
        "--topology", "h100:8", "--workdir", "s3://b/a b", "--sample.prompts", "It's", "$HOME", "--train.steps", "900"
    )
    assert job.command == [
        ".venv/bin/python", "-m", "launch.supervise", "--stopped-code", "75", "launch.pretrain", CONFIG,
        "--workdir", "s3://b/a b", "--sample.prompts", "It's", "$HOME", "--train.steps", "900",
    ]  # fmt: skip
    said = subprocess.run(["bash", "-c", f"printf '%s\\n' {job.shell_command}"], capture_output=True, text=True)
    assert said.stdout.splitlines() == job.command


def test_the_environment_is_that_of_the_hardware():
    made = [job_of("--topology", *words) for words in (["v6e:2x4"], ["h100:8"], ["h100:8", "--cuda", "cuda12"])]
    assert [job.accelerator for job in made] == ["tpu", "cuda13", "cuda12"]
    assert all(f"ACCELERATOR={job.accelerator} " in job.setup for job in made)


def test_what_trains_is_supervised_and_what_ends_by_itself_is_not():
    job = job_of("--topology", "h100:8", "--script", "launch.evaluate")
    assert job.command == [".venv/bin/python", "-m", "launch.evaluate", CONFIG]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--topology", "v9:2x2"], "There is no topology"),
        (["--topology", "v6e:2x4", "--train.step", "9"], "Did you mean --train.steps"),
        (["--topology", "v6e:2x4", "--train.mesh.fsdp", "16"], "16.*does not divide what is here: 8 devices"),
        (["--topology", "v6e:16x16", "--train.batch-size", "100"], "batch_size = 100"),
        (["--topology", "v6e:4x4", "--script", "launch.pretrain"], "v6e:4x4 has 4 hosts.*launch.write_shards"),
        (["--topology", "v6e:4x4", *BUCKET], "in a bucket, where one process can work, but v6e:4x4 has 4 hosts.*/mnt"),
        (["--topology", "h100:16", *BUCKET], "h100:16 has 2 hosts"),
        (["--topology", "v6e:2x4", "--name", "My_Run"], "'My_Run'.*--name"),
        (["--topology", "v6e:2x4", "--name", "a" * 40], "--name"),
    ],
)
def test_what_cannot_run_is_refused(words, said):
    with pytest.raises(UsageError, match=f"(?s){said}"):
        job_of(*words)


def test_a_config_that_would_not_be_there_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text((REPOSITORY / CONFIG).read_text())
    with pytest.raises(UsageError, match=r"lies outside of .*Copy it into configs/"):
        parse_job(
            parser_of("launch.cloud.x", "", {"run": ""}), [str(tmp_path / "mine.py"), "run", "--topology", "h100:8"]
        )


@pytest.mark.parametrize(("script", "action"), [("gke", "run"), ("skypilot", "run"), ("tpu_vm", "keep")])
def test_a_run_folder_that_would_go_with_the_machine_is_refused(script, action):
    _, words = ACTIONS[script]
    with pytest.raises(UsageError, match="--workdir gs://BUCKET"):
        main(script, CONFIG, action, *words, "--dry-run")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("gke", ["h100:16", "--image", "i", "--workdir", "/mnt/shared/a"]),
        ("gke", ["h100:16", "--image", "i", "--workdir", "/elsewhere/a", "--volume", "runs:/mnt/shared"]),
        ("skypilot", ["h100:16", "--workdir", "/mnt/shared/a"]),
        ("tpu_vm", ["v6e:4x4", "--zone", "us-east5-b"]),
    ],
)
def test_several_hosts_want_their_run_folder_on_a_disk_that_they_share(script, words):
    with pytest.raises(UsageError, match=r"(?s)is on a disk of one host.*Give the path of one on a disk that all"):
        main(script, CONFIG, "run", "--topology", *words, "--dry-run")


def test_a_shared_disk_serves_one_host_too_and_slurm_has_one(capsys):
    volume = ["--volume", "runs:/mnt/shared", "--workdir", "/mnt/shared/a"]
    main("gke", CONFIG, "run", "--topology", "h100:8", "--image", "i", *volume, "--dry-run")
    assert "claimName: runs" in capsys.readouterr().out
    main("slurm", CONFIG, "run", "--topology", "h100:16", "--dry-run")


@pytest.mark.parametrize("given", ["runs", "runs:mnt", ":/mnt", "runs:/"])
def test_a_volume_has_a_name_and_a_path(given):
    with pytest.raises(UsageError, match=r"--volume is .*NAME:/PATH"):
        main("gke", CONFIG, "run", "--topology", "h100:8", "--image", "i", *BUCKET, "--volume", given, "--dry-run")


def test_a_spot_slice_wants_its_run_folder_elsewhere():
    _, words = ACTIONS["tpu_vm"]
    with pytest.raises(UsageError, match="--workdir gs://BUCKET"):
        main("tpu_vm", CONFIG, "run", *words, "--spot", "--dry-run")
    main("tpu_vm", CONFIG, "run", *words, "--dry-run")


def test_every_shipped_config_has_a_name_for_its_job():
    for path in (REPOSITORY / "configs").glob("*.py"):
        assert re.fullmatch(NAME, path.stem.strip("_").replace("_", "-")), path


def test_no_script_brings_jax():
    scripts = ", ".join(f"launch.cloud.{name}" for name in ACTIONS)
    program = f"import sys, {scripts}; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_launch_scripts_of_this_room_are_short():
    for name in ACTIONS:
        assert len(Path(REPOSITORY / f"launch/cloud/{name}.py").read_text().splitlines()) <= 60, name

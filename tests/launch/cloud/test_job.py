"""All scripts write a file that bash or YAML parses as intended, or fail before any hardware is paid for."""

import importlib
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from configs.experiment import load_config, parse_command
from configs.layouts import LAYOUTS
from launch.cloud import job
from launch.cloud.job import accelerator
from lm.errors import UsageError
from lm.planner.topology import CHIPS, topology_of
from lm.storage import write_atomically
from tests.launch.cloud.files import ANY, CONFIG, REPOSITORY, WORDS, commands_in, comments_in, dry_run, pod_of

FIRST = ("gpt2_124m/h100:1", "llama3_8b/v6e:8x8")
ON = {"gke": "h100:16", "skypilot": "h100:16", "slurm": "h100:16", "tpu_vm": "v6e:4x4"}
HOSTILE = ["It's", '"odd" $HOME', "$(HOME) $$", "`id`", "a\nb", "\n#SBATCH -A x\nEOF\n", "%s {x} \\", "\x85é\U0001f600"]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def command_in(cloud: str, text: str) -> list[str]:
    """Return the words of the run, as bash or Kubernetes parses them."""
    if cloud == "gke":
        words = pod_of(yaml.safe_load(text))["containers"][0]["command"]
        assert all(re.fullmatch(r"([^$]|\$\$)*", word) for word in words)  # otherwise Kubernetes expands $(NAME)
        return [word.replace("$$", "$") for word in words]
    text = yaml.safe_load(text)["run"] if cloud == "skypilot" else text
    line = text[text.index(".venv/bin/python") :].partition("\ncode=$?\nif [")[0]
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True)
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize("cloud", WORDS)
def test_hostile_words_reach_the_run_and_no_other_part_of_the_file(cloud, capsys):
    texts = [dry_run(capsys, cloud, ON[cloud], "--sample.prompts", *words) for words in (["a"], HOSTILE)]
    harmless, hostile = (command_in(cloud, text) for text in texts)
    assert hostile == [*harmless[:-1], *HOSTILE] and harmless[-2:] == ["--sample.prompts", "a"]
    first, second = (re.findall(r"\A(?:#.*\n)*", text) for text in texts)  # Slurm's options are in the first comments
    assert first == second


@pytest.mark.parametrize("cloud", WORDS)
def test_the_compilation_cache_is_next_to_the_run_folder(cloud, capsys, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    folder = "gs://bucket/a $HOME's/"  # hosts and shells pass it unchanged
    text = dry_run(capsys, cloud, ON[cloud], "--workdir", folder)
    if cloud == "gke":
        environment = pod_of(yaml.safe_load(text))["containers"][0]["env"]
        (value,) = [one["value"] for one in environment if one["name"] == "JAX_COMPILATION_CACHE_DIR"]
        value = value.replace("$$", "$")
    elif cloud == "skypilot":
        value = yaml.safe_load(text)["envs"]["JAX_COMPILATION_CACHE_DIR"]
    else:
        (line,) = re.findall("^export .*JAX_COMPILATION_CACHE_DIR.*$", text, re.MULTILINE)
        shell = ["bash", "-c", f'{line}; printf %s "$JAX_COMPILATION_CACHE_DIR"']
        value = subprocess.run(shell, capture_output=True, text=True).stdout
    assert value == "gs://bucket/a $HOME's.compiled"


@pytest.mark.parametrize(("cloud", "names"), [("gke", ["image", "queue", "account", "secret"]), ("tpu_vm", ["zone"])])
def test_hostile_names_are_quoted_in_the_file_and_in_its_commands(cloud, names, capsys):
    evil = "x'; touch /tmp/evil #\n#SBATCH --account=x\nevil: $(id)"
    text = dry_run(capsys, cloud, ON[cloud], *(word for name in names for word in (f"--{name}", evil)))
    assert not re.search("^(evil|#SBATCH)", text, re.MULTILINE)
    assert {"gke": f"--tag={evil}", "tpu_vm": f"--zone={evil}"}[cloud] in shlex.split(comments_in(text))
    if cloud == "gke":
        made, pod = yaml.safe_load(text), pod_of(yaml.safe_load(text))
        (run,) = pod["containers"]
        found = [run["image"], pod["serviceAccountName"], run["envFrom"][0]["secretRef"]["name"]]
        assert [*found, *made["metadata"]["labels"].values()] == [evil] * 4


@pytest.mark.parametrize("cloud", WORDS)
def test_a_dry_run_prints_the_file_that_is_written_and_needs_and_writes_nothing(cloud, capsys, monkeypatch, tmp_path):
    shutil.copytree("configs", tmp_path / "configs")
    monkeypatch.setattr(job, "REPOSITORY", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in (("PATH", "/nowhere"), ("WANDB_API_KEY", "secret123"), ("AWS_SECRET_ACCESS_KEY", "secret123")):
        monkeypatch.setenv(name, value)
    text = dry_run(capsys, cloud, ON[cloud])
    assert not (tmp_path / "runs").exists() and "secret123" not in text
    importlib.import_module(f"launch.cloud.{cloud}").main([CONFIG, "--topology", ON[cloud], *WORDS[cloud]])
    (path,) = (tmp_path / "runs/cloud").iterdir()
    said = capsys.readouterr().out
    assert path.read_text() == text and said.startswith(f"# written: {path.relative_to(tmp_path)}\n")
    assert said.partition("\n")[2] in text and str(path.relative_to(tmp_path)) in " ".join(commands_in(said)["submit"])


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize("chip", CHIPS)
def test_every_chip_gets_a_file_or_an_error_with_the_available_ones(chip, capsys):
    """The file of one script, the error of another: all name the chips that they have from one table."""
    name, refused = f"{chip}-8" if CHIPS[chip].torus else f"{chip}:8", {}
    for cloud in WORDS:
        try:
            assert accelerator(topology_of(name), cloud)
        except UsageError as error:
            refused[cloud] = str(error)
    for cloud in [cloud for cloud in WORDS if cloud not in refused][:1]:
        assert f" on {chip}:" in dry_run(capsys, cloud, name, *ANY)
    for cloud, said in [*refused.items()][:1]:
        with pytest.raises(UsageError, match=re.escape(said)):
            dry_run(capsys, cloud, name, *ANY)
        (offered,) = re.findall(rf"is {chip}:.*, but launch.cloud.{cloud} has (.*?)(?: .one slice.)?\. Choose", said)
        assert chip not in offered.split(", ") and {*offered.split(", ")} <= {*CHIPS}


@pytest.mark.fast_rows(len(FIRST))
@pytest.mark.parametrize("name", dict.fromkeys((*FIRST, *LAYOUTS)))
def test_a_run_has_the_layout_of_its_topology(name, capsys):
    row, config = LAYOUTS[name], f"configs/{LAYOUTS[name].model}.py"
    cloud = "tpu_vm" if ":v" in name.replace("/", ":") else "slurm"
    text = dry_run(capsys, cloud, row.topology, config=config)
    words = command_in(cloud, text)
    assert words[1:5] == ["-m", "launch.supervise", "--stopped-code", "75"]
    run, _ = parse_command("launch.train", "", words[words.index(config) :])
    saved = load_config(REPOSITORY / config)
    assert (run.model, run.train) == row.of(saved.model, saved.train) and f"layout {name};" in text


def test_one_host_runs_all_stages_and_several_train_and_a_missing_layout_is_reported(capsys):
    assert "# launch.pretrain configs/gpt2_124m.py on v6e:2x4; layout" in dry_run(capsys, "tpu_vm", "v6e:2x4")
    assert "# launch.train configs/gpt2_124m.py on 2xv6e:2x4; layout" in dry_run(capsys, "tpu_vm", "2xv6e:2x4")
    assert "layout gpt2_124m/h100:1 (launch.plan --search" in dry_run(capsys, "slurm", "h100:64")
    assert "ACCELERATOR=cuda12" in dry_run(capsys, "skypilot", "h100:8", "--cuda", "cuda12")


@pytest.mark.parametrize(
    ("cloud", "words", "said"),
    [
        ("gke", ["v9:2x2"], "There is no topology"),
        ("tpu_vm", ["v6e:2x4", "--train.mesh.fsdp", "16"], "16.*does not divide 8 devices"),
        ("slurm", ["h100:256", "--train.batch-size", "100"], "batch_size = 100"),
        ("slurm", ["h100:8", "--model.layers", "9000"], "configs/gpt2_124m.py on h100:8 does not fit: .*What helps:"),
        ("gke", ["v6e:2x4", "--name", "My_Run"], "'My_Run'.*--name"),
        ("gke", ["v6e:2x4", "--name", "a" * 40], "--name"),
        ("gke", ["h100:16", "--workdir", "runs/a"], "run folder is runs/a.*--workdir gs://[.]{3} or s3://"),
        ("gke", ["h100:8", "--workdir", "/mnt/b/../a", "--volume", "runs:/mnt/b"], "/mnt/b/../a.* or /mnt/b/[.]{3}"),
        *[("gke", ["h100:8", "--volume", one], "--volume is .*CLAIM:/PATH") for one in ("a", "a:mnt", ":/mnt", "a:/")],
        ("skypilot", ["h100:8", "--workdir", "/mnt/shared/a"], "run folder is /mnt/shared/a"),
        ("skypilot", ["2xv6e-256", *ANY], "l40s .one slice.*gke"),
        ("tpu_vm", ["v6e:2x4", "--workdir", "s3://bucket/a"], "run folder is s3://bucket/a.*--workdir gs://"),
    ],
)  # fmt: skip
def test_settings_that_would_fail_on_paid_hardware_are_rejected(cloud, words, said, capsys):
    with pytest.raises(UsageError, match=f"(?s){said}"):
        dry_run(capsys, cloud, *words)


@pytest.mark.parametrize(("words", "said"), [(["--train.step", "9"], "--train.steps INT"), (["run"], "options: run")])
def test_an_unknown_option_is_rejected(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        dry_run(capsys, "gke", "v6e:2x4", *words)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_a_config_that_the_hosts_do_not_get_is_rejected(tmp_path, monkeypatch, capsys):
    shutil.copy(CONFIG, tmp_path / "mine.py")
    for config in (tmp_path / "mine.py", REPOSITORY / CONFIG):
        with pytest.raises(UsageError, match=r"config is .*\.py and the current folder .*Change to .*, and copy"):
            dry_run(capsys, "slurm", "h100:8", config=str(config))
        monkeypatch.chdir(tmp_path)


def test_the_code_is_the_tracked_files_and_the_config(tmp_path, capsys):
    (upload,) = re.findall("upload the code: (.*) [|] gcloud", dry_run(capsys, "tpu_vm", "v6e:2x4"))
    for name in ("kept.py", CONFIG, "secrets.env"):
        write_atomically(tmp_path / name, name)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    for tracked in ("kept.py", CONFIG):  # a config that git does not track yet is included
        subprocess.run(["git", "-C", tmp_path, "add", tracked], check=True)
        done = subprocess.run(["bash", "-c", f"{upload} | tar -tz"], cwd=tmp_path, capture_output=True, text=True)
        assert sorted(done.stdout.split()) == [CONFIG, "kept.py"], done.stderr


def test_a_run_on_another_chip_gets_no_xla_options_of_its_layout(capsys):
    config = "configs/llama3_8b.py"
    words = command_in("tpu_vm", dry_run(capsys, "tpu_vm", "v5e:8x16", *ANY, "--train.mesh.fsdp", "128", config=config))
    assert words[-1] == "--train.xla-options"
    assert parse_command("launch.train", "", words[words.index(config) :])[0].train.xla_options == ()
    same = command_in("tpu_vm", dry_run(capsys, "tpu_vm", "v5p-128", *ANY, "--train.mesh.fsdp", "64", config=config))
    assert "--train.xla-options" not in same

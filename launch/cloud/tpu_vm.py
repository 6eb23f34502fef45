"""Write the startup script of a run on TPU VMs: one slice or several, requested as a queued resource of Google Cloud.

python -m launch.cloud.tpu_vm configs/gpt2_124m.py --topology v6e:2x4 --zone us-east5-b --workdir gs://BUCKET/runs/a

Follows "Manage queued resources" and "Preserve training progress using Autocheckpoint" (docs.cloud.google.com/tpu/docs/
queued-resources and /autocheckpoint), read on 2 December 2026. Never run on a cloud.
"""

import shlex

from launch.cloud.job import BASH, NAMES, check_workdir, exports, job_parser, parse_job, write_job
from launch.stages.command import handle_cli_errors


def main(arguments: list[str] | None = None) -> None:
    parser = job_parser("tpu_vm", __doc__)
    parser.add_argument("--zone", required=True, help="such as us-east5-b")
    parser.add_argument("--spot", action="store_true", help="cheaper capacity that may be preempted")
    job, given = parse_job(parser, arguments)
    log, process = "/var/log/gristmill.log", "/run/gristmill.pid"
    check_workdir(job, "gs://")  # the hosts' service account has no keys for s3://
    code = shlex.quote(f"{job.workdir.rstrip('/')}.code.tar.gz")  # next to the run folder, which has only the run
    text = f"""{BASH}# Every host runs this as root whenever it boots, so the run continues after a reboot.
# Before maintenance of a host, Google sends SIGTERM and waits 5 minutes for the save (--autocheckpoint-enabled, a
# preview). Its page names no TPU versions; an older copy names only v2 to v4 and v5e. If v5p or v6e get no SIGTERM, the
# run loses the steps since its last checkpoint.
set -eu -o pipefail
exec >> {log} 2>&1
export HOME=/root PATH="$PATH:/snap/bin"
{exports(job)}
mkdir -p /opt/gristmill
cd /opt/gristmill
until gcloud storage cat {code} | tar -xz && {job.setup}; do sleep 30; done
echo $$ > {process}
exec {job.command}
"""
    alpha = {"create": ["alpha"]}  # only there: --autocheckpoint-enabled
    queued = lambda verb, *words: shlex.join(
        [
            "gcloud", *alpha.get(verb, []), "compute", "tpus", "queued-resources", verb, job.name,
            f"--zone={given.zone}", *words,
        ]
    )  # fmt: skip
    slices, runtime = job.topology.slices, NAMES[job.topology.chip.name].runtime
    nodes = [f"--node-id={job.name}"] if slices == 1 else [f"--node-count={slices}", f"--node-prefix={job.name}"]
    spot = ["--spot"] if given.spot else []
    kind = [f"--accelerator-type={job.accelerator}", f"--runtime-version={runtime}", "--autocheckpoint-enabled", *spot]
    commands = {
        "upload the code": f"{job.pack} | gcloud storage cp - {code}",
        "submit": queued("create", *nodes, *kind, f"--metadata-from-file=startup-script={job.file}.sh"),
        "state": queued("describe", "--format=value(state.state)"),
        "follow": queued("ssh", f"--command=sudo tail -n 100 -F {log}"),
        "stop": queued("ssh", "--node=all", "--worker=all", f"--command=sudo kill -TERM $(cat {process})"),
        "delete (you pay until then)": queued("delete", "--force"),
    }
    write_job(job, ".sh", text, commands, given.dry_run)


if __name__ == "__main__":
    with handle_cli_errors("launch.cloud.tpu_vm"):
        main()

"""TPU VMs by gcloud: one queued resource holds the slices of a job, each a TPU VM of one or more hosts.

Commands and states: docs.cloud.google.com/tpu/docs/queued-resources, and
cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources/create, read as stored copies in November 2026.
"""

import shlex
import time
from dataclasses import dataclass

from launch.cloud.job import STOPPED, Job, refuse_lost
from launch.cloud.names import TPUS, accelerator_type, hosts
from launch.cloud.tools import Tools, note
from lm.errors import InputError, UsageError

FOLDER = "gristmill"
"""Of the code, in the home folder of every host."""
LOST = ("FAILED", "SUSPENDING", "SUSPENDED")
"""States in which a queued resource has no slice any more and gets none: it must be deleted and asked for again."""
MOST_FAILURES = 5
POLL_SECONDS = 60.0
RUNNING = '[ -f run.shell ] && grep -qs launch "/proc/$(cat run.shell)/cmdline"'
"""Whether the shell around the run is there, which writes its exit code down at the end: a host that began anew may
have given its number to another process."""

# A host that is shut down, and then begins anew, asks the run to end too, but leaves no run.stop.
PROGRESS = (
    f"cd {FOLDER} 2>/dev/null || {{ echo nothing; exit; }}; if {RUNNING}; then echo running; "
    f'elif [ -f run.code ] && {{ [ -f run.stop ] || [ "$(cat run.code)" != {STOPPED} ]; }}; then cat run.code; '
    "else echo nothing; fi"
)


@dataclass(frozen=True)
class QueuedResource:
    """The queued resource of a job, of the job's name; each method is an action of launch.cloud.tpu_vm."""

    job: Job
    tools: Tools
    zone: str
    project: str | None = None
    spot: bool = False
    runtime: str = ""
    flags: tuple[str, ...] = ()
    """Further flags of `create`."""

    @property
    def place(self) -> list[str]:
        return [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]

    @property
    def nodes(self) -> list[str]:
        """The names of the TPU VMs: of several slices, those that gcloud makes of a prefix."""
        slices = self.job.topology.slices
        return [self.job.name] if slices == 1 else [f"{self.job.name}-{number}" for number in range(slices)]

    def queued(self, verb: str, *words: str) -> list[str]:
        return ["gcloud", "compute", "tpus", "queued-resources", verb, self.job.name, *self.place, *words]

    def create(self) -> None:
        topology = self.job.topology
        several = [f"--node-count={topology.slices}", f"--node-prefix={self.job.name}"]
        self.tools.run(
            *self.queued("create"),
            *([f"--node-id={self.job.name}"] if topology.slices == 1 else several),
            f"--accelerator-type={accelerator_type(topology)}",
            f"--runtime-version={self.runtime or TPUS[topology.chip.name].runtime}",
            *(["--spot"] if self.spot else []),
            *self.flags,
        )

    def state(self) -> None:
        self.tools.run(*self.queued("describe", "--format=value(state.state)"))

    def delete(self) -> None:
        self.tools.run(*self.queued("delete", "--force", "--quiet"))

    def ssh(self, node: str, worker: str, command: str) -> list[str]:
        return [
            "gcloud", "compute", "tpus", "tpu-vm", "ssh", node, *self.place, f"--worker={worker}",
            f"--command={command}",
        ]  # fmt: skip

    def on_all_hosts(self, command: str) -> None:
        for node in self.nodes:
            self.tools.run(*self.ssh(node, "all", command))

    def install(self) -> None:
        archive = self.job.file(".tar.gz")
        self.tools.bundle(archive, self.job.config)
        for node in self.nodes:
            self.tools.run(
                "gcloud", "compute", "tpus", "tpu-vm", "scp", str(archive), f"{node}:{FOLDER}.tar.gz", *self.place,
                "--worker=all",
            )  # fmt: skip
        unpack = f"mkdir -p {FOLDER} && tar -xzf {FOLDER}.tar.gz -C {FOLDER} && cd {FOLDER}"
        self.on_all_hosts(f"{unpack} && {self.job.setup}")

    def refuse_lost_folder(self) -> None:
        """Raises UsageError where the run folder goes with the slice. A disk that several hosts share is one that they
        mount by themselves, at a path that is not known here."""
        shared = "/" if hosts(self.job.topology) > 1 else ""
        refuse_lost(self.job, "which goes when a slice is taken away", shared)

    def run(self) -> None:
        """Starts the script on every host; it goes on when the connection ends. run.log has what it prints, run.code
        its exit code once it has ended."""
        if self.spot or hosts(self.job.topology) > 1:
            self.refuse_lost_folder()
        shell = f"echo $$ > run.shell; {self.job.shell_command} & echo $! > run.pid; wait $!; echo $? > run.code"
        self.on_all_hosts(
            f"cd {FOLDER} || exit 1; if {RUNNING}; then echo it runs already; exit 1; fi; "
            f"rm -f run.pid run.code run.stop; nohup bash -c {shlex.quote(shell)} >> run.log 2>&1 < /dev/null & "
            "until [ -f run.pid ]; do sleep 0.1; done"
        )

    def logs(self) -> None:
        self.tools.run(*self.ssh(self.nodes[0], "0", f"tail -n 100 -F {FOLDER}/run.log"))

    def stop(self) -> None:
        self.on_all_hosts(f'cd {FOLDER} && touch run.stop && if {RUNNING}; then kill -TERM "$(cat run.pid)"; fi')

    def current_state(self) -> str:
        """ACTIVE, SUSPENDED, ... by the service; "" where there is no such queued resource. Raises InputError when
        gcloud cannot tell."""
        said = self.tools.ask(*self.queued("describe", "--format=value(state.state)"))
        if said.returncode == 0:
            return said.stdout.strip()
        if "NOT_FOUND" in said.stderr:
            return ""
        raise InputError(f"gcloud cannot tell the state of {self.job.name}: {said.stderr.strip()}")

    def progress(self) -> str:
        """The run on host 0: its exit code; "running"; "nothing" where it was not started, or ended with the host; or
        "unreachable"."""
        said = self.tools.ask(*self.ssh(self.nodes[0], "0", PROGRESS))
        return said.stdout.strip().splitlines()[-1] if said.returncode == 0 and said.stdout.strip() else "unreachable"


def keep(resource: QueuedResource) -> None:
    """Creates, installs and runs, and does so again whenever the slice is taken away, until the run is done. Ended
    itself, it can be begun again: it looks at what there is.

    Raises UsageError when the run folder would go with the slice, InputError when the run failed or was stopped by
    hand, and when the service refuses the slice, or a command fails, several times in a row.
    """
    resource.refuse_lost_folder()
    if resource.tools.dry_run:
        return show_keep(resource)
    failures, last = 0, ""
    while True:
        try:
            said, code = look(resource, failures)
            failures = failures + 1 if said == "FAILED" else 0
        except UsageError:
            raise
        except InputError as error:  # a host that does not answer yet, a network that is gone for a while
            said, code, failures = str(error), None, failures + 1
        if code is not None:
            return finish(resource, code)
        if said != last:
            note(f"keep: {time.strftime('%H:%M:%S')} {resource.job.name}: {said}")
            last = said
        if failures >= MOST_FAILURES:
            raise InputError(
                f"{failures} failures in a row, so keep ends: {said}. What there is of {resource.job.name} stays, "
                f"and is paid for until the action delete. Ask why: {shlex.join(resource.queued('describe'))}"
            )
        time.sleep(POLL_SECONDS)


def look(resource: QueuedResource, failures: int) -> tuple[str, int | None]:
    """Takes the next step towards a run that is done: (how it stands, the exit code of a run that has ended)."""
    state = resource.current_state()
    if state == "ACTIVE":
        progress = resource.progress()
        if progress.isdecimal():
            return state, int(progress)
        if progress == "nothing":
            resource.install()
            resource.run()
        return f"ACTIVE, the run: {progress}", None
    last_time = state == "FAILED" and failures + 1 >= MOST_FAILURES
    if (state == "" or state in LOST) and not last_time:
        if state:
            resource.delete()
        resource.create()
    return state or "asked for", None


def finish(resource: QueuedResource, code: int) -> None:
    """Says how the run ended. Raises InputError unless it is done."""
    if code:
        how = "was stopped by hand" if code == STOPPED else f"ended with code {code}"
        raise InputError(f"The run {how}. Look at its log (action logs), then run it again (action run); it goes on.")
    note(f"keep: the run is done, in {resource.job.workdir}. Give the slice back with the action delete.")


def show_keep(resource: QueuedResource) -> None:
    """What `keep` does, in order, without doing it."""
    print(f"# every {POLL_SECONDS:.0f} s: its state")
    resource.state()
    print(f"# where there is none, or it is {', '.join(LOST)}: the old one away, a new one asked for")
    resource.delete()
    resource.create()
    print("# once it is ACTIVE, and nothing runs there")
    resource.install()
    resource.run()

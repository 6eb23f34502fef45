"""Serve a trained model over HTTP with OpenAI's completions API, until SIGTERM or Ctrl-C.

    python -m launch.serve runs/demo --port 8000

docs/serving.md lists the supported requests. Listens on 127.0.0.1 unless you set --host.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from configs.experiment import Experiment
from configs.experiment.command_line import Flag
from configs.experiment.run_folder import RunFolder
from launch.stages.command import run_command
from launch.stages.processes import require_one_process
from launch.stages.trained import load_trained, say
from lm.errors import UsageError


@dataclass(frozen=True)
class Options:
    step: int | None = None
    """Step of the checkpoint or snapshot to serve; default: the newest."""
    weights: Literal["float32", "bfloat16", "int8"] | None = None
    """Convert the weights to this type, in a layout for fast decoding on one device; default: as trained."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0: all interfaces. Addresses other than 127.0.0.1 require --allowed-hosts."""
    port: int = 8000
    """Port; 0: choose a free one, and print it."""
    model_name: str = ""
    """Model name in the API; default: the name of the run folder."""
    slots: int = 8
    """Sequences to generate at once (batch size)."""
    decode_steps: int = 8
    """Tokens to generate per sequence before requests are admitted or removed: more is faster, but streams in larger
    pieces."""
    max_queue: int = 256
    """Maximum sequences waiting for a slot; further requests get status 429."""
    max_choices: int = 128
    """Maximum sequences per request: its prompts times n."""
    max_body_bytes: int = 2 * 2**20
    """Maximum size of a request body; larger ones get status 413."""
    api_key_file: str = ""
    """File with the API key that clients must send; default: no key is required."""
    api_key_env: str = ""
    """Environment variable with the API key."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may send requests (CORS), such as https://example.org; default: none."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names that clients may use, besides localhost and IP addresses, such as models.example.org."""
    beside: tuple[str, ...] = ()
    """To compare with in the window: run folders (model and tokenizer), tokenizer folders or files, or published
    names."""
    warm_up: Flag = 0
    """Compile for all prompt lengths before listening; otherwise the first prompt of each length waits for
    compilation."""
    grace_seconds: float = 10.0
    """Seconds for running requests to finish after SIGTERM."""


def serve_run(experiment: Experiment, workdir: Path, options: Options) -> bool:
    """Serve the run in `workdir` over HTTP until asked to end; then return True. Raises UsageError for invalid options,
    InputError if it cannot listen at the address, and the errors of `load_trained`."""
    from lm.serving.http import check_names
    from lm.serving.protocol import Limits
    from lm.serving.server import bind, is_loopback, read_key, serve, warm_up

    require_one_process("launch.serve", "Start only one.")
    if not 1 <= options.slots <= 1024 or not 1 <= options.decode_steps <= 1024:
        raise UsageError(
            f"--slots is {options.slots}, --decode-steps {options.decode_steps}; both must be from 1 to 1,024."
        )
    if not 0 <= options.grace_seconds < math.inf:
        raise UsageError(f"--grace-seconds is {options.grace_seconds}; it must be a number of seconds, 0 or more.")
    key = read_key(options.api_key_file, options.api_key_env)
    limits = Limits(
        context=experiment.model.context_length, max_choices=options.max_choices, max_queue=options.max_queue,
        max_body_bytes=options.max_body_bytes,
    )  # fmt: skip
    beside = named_tokenizers(options.beside)
    bound = bind(options.host, options.port)  # before the model is loaded: reports an address in use immediately
    with bound:
        check_names(options.cors_origins, options.allowed_hosts, is_loopback(bound))
        from lm.chat.tools import tools_of
        from lm.inference.engine import Engine
        from viewer.page import served_pages
        from viewer.window.inspections import inspections_of
        from viewer.window.model_views import MOST_TOKENS
        from viewer.window.window_run import WindowRun

        run = load_trained(experiment, workdir, options.slots, "--slots", options.step, weights=options.weights)
        name = options.model_name or RunFolder(workdir).name
        engine = Engine(
            run.model, experiment.model, run.tokenizer, slots=options.slots, mesh=run.mesh,
            decode_steps=options.decode_steps,
        )  # fmt: skip
        warm_up(engine, bool(options.warm_up))
        window = WindowRun(experiment, workdir, run, name, beside)
        window.load_others(options.beside)
        if options.warm_up:
            window.served.warm(MOST_TOKENS - 1)
        host, port = bound.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

        def listening() -> None:
            say(f"serve: {name} at step {run.step:,}, on {url}/v1; window: {url}/window")
            if not key and not is_loopback(bound):
                say("serve: anyone who can reach this address can use it; --api-key-file requires a key")

        serve(
            engine, run.tokenizer, name, run.step, bound, options.slots, limits, api_key=key,
            cors_origins=options.cors_origins, allowed_hosts=options.allowed_hosts,
            grace_seconds=options.grace_seconds, on_start=listening, inspections=inspections_of(window),
            pages=served_pages(), tools=tools_of(experiment.chat.base, run.tokenizer),
        )  # fmt: skip
    return True  # the script has no other task


def named_tokenizers(given: tuple[str, ...]) -> dict[str, Any]:
    """Return {name: tokenizer} of run folders, tokenizer folders or files, or published names. If two have the same
    name, the path is the name of the second one. Raises the errors of `find_tokenizer`."""
    from viewer.tokenizer.finding import find_tokenizer

    found = {}
    for one in given:
        name, tokenizer = find_tokenizer(one)
        found[one if name in found else name] = tokenizer
    return found


if __name__ == "__main__":
    run_command("launch.serve", None, ("model",), options=Options, on_the_side=serve_run)

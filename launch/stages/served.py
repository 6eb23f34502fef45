"""Start the server of a run: load its checkpoint, make the engine, bind the socket."""

import math
from pathlib import Path
from typing import Any

from configs.experiment import Experiment
from launch.stages.processes import process_count
from launch.stages.trained import load_trained, say
from lm.errors import UsageError
from lm.storage import shown_place


def serve_run(experiment: Experiment, workdir: Path, options: Any) -> bool:
    """Serve the run in `workdir` by launch.serve's Options until asked to end. Raises UsageError for impossible
    options, InputError if the address cannot be bound, and like `load_trained`."""
    from lm.serving.http import check_names
    from lm.serving.limits import Limits
    from lm.serving.server import bind, is_loopback, read_key

    if process_count() > 1:
        raise UsageError(f"launch.serve is for one process, but there are {process_count()} here. Start it by itself.")
    if not 1 <= options.slots <= 1024 or not 1 <= options.decode_steps <= 1024:
        raise UsageError(
            f"--slots is {options.slots}, --decode-steps {options.decode_steps}; both are from 1 to 1,024."
        )
    if not 0 <= options.grace_seconds < math.inf:
        raise UsageError(f"--grace-seconds is {options.grace_seconds}; it must be a number of seconds, 0 or more.")
    key = read_key(options.api_key_file, options.api_key_env)
    limits = Limits(
        context=experiment.model.context_length, max_choices=options.max_choices, max_queue=options.max_queue,
        max_body_bytes=options.max_body_bytes,
    )  # fmt: skip
    beside = named_tokenizers(options.beside)
    bound = bind(options.host, options.port)  # before the model is loaded: an address that is taken is told at once
    with bound:
        check_names(options.cors_origins, options.allowed_hosts, is_loopback(bound))
        serve_on(bound, experiment, workdir, options, limits, key, beside)
    return True  # that is all that the script does


def named_tokenizers(given: tuple[str, ...]) -> dict[str, Any]:
    """{name: tokenizer} of everything that launch.inspect_tokenizer accepts; equal names are made distinct by their
    paths. Raises like `find_tokenizer`."""
    from viewer.tokenizer.finding import find_tokenizer

    found: dict[str, Any] = {}
    for one in given:
        name, tokenizer = find_tokenizer(one)
        found[one if name in found else name] = tokenizer
    return found


def serve_on(
    bound: Any, experiment: Experiment, workdir: Path, options: Any, limits: Any, key: str, beside: dict[str, Any]
) -> None:
    """Serve on a bound socket."""
    from lm.inference.engine import Engine
    from lm.serving.server import is_loopback, serve, warm_up
    from viewer.page import served_pages
    from viewer.window.inspections import inspections_of
    from viewer.window.model_views import MOST_TOKENS
    from viewer.window.window_run import WindowRun

    context = experiment.model.context_length
    run = load_trained(experiment, workdir, options.slots, context, "--slots", options.step, options.weights)
    folder = str(shown_place(workdir).resolve())
    name = options.model_name or folder.rpartition("/")[2]
    engine = Engine(
        run.model, experiment.model, run.tokenizer, slots=options.slots, mesh=run.mesh,
        decode_steps=options.decode_steps,
    )  # fmt: skip
    warm_up(engine, options.warm_up)
    window = WindowRun(experiment, workdir, run, name, beside)
    window.put_beside(options.beside)
    if options.warm_up:
        window.served.warm(MOST_TOKENS - 1)
    host, port = bound.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def listening() -> None:
        say(f"serve: {name} at step {run.step:,}, on {url}/v1; look inside: {url}/window")
        if not key and not is_loopback(bound):
            say("serve: whoever reaches this address may use it; --api-key-file asks for a key")

    serve(
        engine, run.tokenizer, name, run.step, bound, options.slots, limits, api_key=key,
        cors_origins=options.cors_origins, allowed_hosts=options.allowed_hosts, grace_seconds=options.grace_seconds,
        on_start=listening, inspections=inspections_of(window), pages=served_pages(),
    )  # fmt: skip

"""Serve a trained model over HTTP with OpenAI's completions API, until SIGTERM or Ctrl-C.

    python -m launch.serve runs/demo --port 8000

docs/serving.md lists the supported requests. Listens on 127.0.0.1 unless you set --host.
"""

from dataclasses import dataclass
from typing import Literal

import tyro

from launch.stages.command import run_command
from launch.stages.served import serve_run


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
    """For comparison in the window: run folders (model and tokenizer), tokenizer folders or files, or published
    names."""
    warm_up: tyro.conf.UseCounterAction[int] = 0  # a flag without value
    """Compile for all prompt lengths before listening; otherwise the first prompt of each length waits for
    compilation."""
    grace_seconds: float = 10.0
    """Seconds for running requests to finish after SIGTERM."""


if __name__ == "__main__":
    run_command("launch.serve", (__doc__ or "").strip(), lambda *given: None, ("model",), Options, serve_run)

"""A trained model over HTTP, by the protocol of OpenAI's completions, until SIGTERM or Ctrl-C.

    python -m launch.serve runs/demo --port 8000

docs/serving.md has what clients may ask for. It listens on 127.0.0.1 unless --host says otherwise.
"""

from dataclasses import dataclass
from typing import Literal

import tyro

from launch.stages.command import run_command
from launch.stages.served import serve_run


@dataclass(frozen=True)
class Options:
    step: int | None = None
    """Serve the model at this step, of which there must be a checkpoint or a snapshot; by default the newest."""
    weights: Literal["float32", "bfloat16", "int8"] | None = None
    """Lay the weights out for drawing on one device, in this type; by default they are as they were trained."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every one of this machine. Another one than 127.0.0.1 needs --allowed-hosts."""
    port: int = 8000
    """0 takes one that is free, which is printed."""
    model_name: str = ""
    """Name that clients ask for; by default that of the run folder."""
    slots: int = 8
    """Texts that are made at once."""
    decode_steps: int = 8
    """Tokens of each text between two looks at who has come and gone: more is quicker, and its pieces are larger."""
    max_queue: int = 256
    """Texts that may wait for a slot; beyond, a call is answered 429."""
    max_choices: int = 128
    """Texts that one call may ask for: its prompts times n."""
    max_body_bytes: int = 2 * 2**20
    """A larger body is answered 413."""
    api_key_file: str = ""
    """File with the key that clients must send; by default none is asked for."""
    api_key_env: str = ""
    """Variable of the environment that holds it."""
    cors_origins: tuple[str, ...] = ()
    """Web pages of these origins may ask, such as https://example.org; by default none."""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which clients may ask, besides localhost and addresses, such as models.example.org."""
    beside: tuple[str, ...] = ()
    """To compare with in the window: run folders, their models too; tokenizers' folders or files, published names."""
    warm_up: tyro.conf.UseCounterAction[int] = 0  # a flag, which takes no value
    """Compile for prompts of every length before it listens; else the first of each length waits for that."""
    grace_seconds: float = 10.0
    """After SIGTERM, running calls have so long to end."""


if __name__ == "__main__":
    run_command("launch.serve", (__doc__ or "").strip(), lambda *given: None, ("model",), Options, serve_run)

"""Profiles: a server starts only if the environment sets its port, and captures never stop a run."""

import contextlib
import socket

import jax
import jax.numpy as jnp
import pytest

from lm.errors import UsageError
from lm.metrics.profiling import PORT, Profiler
from tests.train_process import free_port

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The first bytes of an HTTP/2 client (gRPC), and a SETTINGS frame (type 4)."""


def test_the_server_runs_during_the_run_and_only_if_requested(tmp_path, monkeypatch):
    monkeypatch.delenv(PORT, raising=False)
    with contextlib.closing(Profiler(tmp_path, 0, 3)) as profiler:
        assert profiler.serve() == ""
    monkeypatch.setenv(PORT, str(port := free_port()))
    with contextlib.closing(Profiler(tmp_path, 0, 3)) as profiler:
        told = profiler.serve()
        assert f":{port}, without a password" in told and f"jax.collect_profile {port} 3000" in told
        with socket.create_connection(("localhost", port)) as client:
            client.sendall(HELLO)
            assert client.recv(4)[3] == 4
        second = Profiler(tmp_path, 0, 3)
        assert second.serve() == f"process 0 has no profiler server at port {port}: Address already in use"
        second.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", port))


@pytest.mark.parametrize("given", ["0", "80", "65536", "-1", "9012a", "host:9012", " ", "99999999999"])
def test_an_invalid_port_is_rejected_with_the_remedy(tmp_path, monkeypatch, given):
    monkeypatch.setenv(PORT, given)
    with pytest.raises(UsageError, match="it must be a port from 1024 to 65,535, or unset"):
        Profiler(tmp_path, 0, 3).serve()


def test_a_trace_during_a_capture_on_demand_is_skipped_and_the_run_continues(tmp_path):
    from jax._src.lib import _profiler  # the class that the server uses for each capture

    capture = _profiler.ProfilerSession()
    with contextlib.closing(Profiler(tmp_path, 1, 1)) as profiler:
        with profiler.step(1):
            result = jnp.ones(3) + 1
        assert "no profile up to step 1: " in profiler.after(1, result)
        capture.stop()
        assert profiler.after(2, result) == ""
    assert jax.block_until_ready(result).shape == (3,)

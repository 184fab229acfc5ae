"""Tiles by plain tasks of Ray, each with an engine of its own; or calls of nothing, sent by `ray.remote`."""

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.ray_calls import WORKERS, asked, serve, tile_anew


def submit(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a task."""
    import ray

    remote = ray.remote(num_cpus=1)(function)
    return lambda **arguments: remote.remote(**arguments).future()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as folder:
        token = Path(folder, "token")
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), RAY_USAGE_STATS_ENABLED="0")
        import ray  # which reads these as it is loaded

        ray.init(num_cpus=WORKERS, include_dashboard=False, object_store_memory=128 * 2**20, _temp_dir=f"{folder}/s", logging_level="error")
        serve(submit, asked(), tile_anew)
        ray.shutdown()

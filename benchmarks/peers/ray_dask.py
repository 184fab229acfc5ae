"""Tiles by the workers of a `dask.distributed` cluster of this machine, which keep their engines; or calls of nothing."""

import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

from distributed import Client, LocalCluster

from benchmarks.ray_calls import WORKERS, asked, serve

if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, local_directory=folder) as cluster,
        Client(cluster) as client,
    ):

        def submit(function: Callable[..., Any]) -> Callable[..., Any]:
            """Without a look at whether this was computed before."""
            return partial(client.submit, function, pure=False)

        serve(submit, asked())

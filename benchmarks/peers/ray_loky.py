"""Tiles by the processes of loky, which joblib runs its calls by and which keep their engines; or calls of nothing."""

from collections.abc import Callable
from functools import partial
from typing import Any

from joblib.externals.loky import get_reusable_executor

from benchmarks.ray_calls import WORKERS, asked, serve

if __name__ == "__main__":
    executor = get_reusable_executor(max_workers=WORKERS, timeout=600)

    def submit(function: Callable[..., Any]) -> Callable[..., Any]:
        """As joblib submits its batches."""
        return partial(executor.submit, function)

    serve(submit, asked())
    executor.shutdown()

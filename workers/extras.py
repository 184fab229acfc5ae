"""Packages that only some runs need: what to say where one is not installed."""

import importlib.util


def ray_missing() -> str:
    """Why nothing can run on Ray here, and what to do; empty: it is installed."""
    if importlib.util.find_spec("ray") is not None:
        return ""
    return (
        "Ray is not installed here: pip install 'eigensweep[ray]', also on the nodes; without it "
        "gram.ray=false computes tiles by processes, and launcher=local or launcher=slurm runs tasks"
    )

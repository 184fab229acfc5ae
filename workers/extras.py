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


def h5py_missing() -> str:
    """Why no trajectory can be written or read here, and what to do; empty: h5py is installed."""
    if importlib.util.find_spec("h5py") is not None:
        return ""
    return "h5py, which writes and reads trajectories, is not installed here: pip install 'eigensweep[swarm]', also on the nodes"

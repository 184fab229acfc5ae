"""Submit sweeps, resume what failed, load one typed dataset: the names that a user imports."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.envelope import envelope
    from orchestrator.fit import Fit, fit
    from orchestrator.isoflop import isoflops
    from orchestrator.verbs import (
        add,
        cancel,
        cost,
        gc,
        init,
        load,
        logs,
        plan,
        plan_add,
        report,
        resume,
        retract,
        run,
        scrub,
        status,
        study,
        study_page,
        submit,
        sweeps,
        tick,
    )
    from workers.context import Context
    from workers.swarm.saved import load_policy
    from workers.workload import Data, Model, Optimizer, Resources, Row, Rows, Workload, setting

__version__ = "0.1.0"

_VERBS = "add cancel cost gc init load logs plan plan_add report resume retract run scrub".split()
_VERBS += "status study study_page submit sweeps tick".split()
_HOMES = {
    **dict.fromkeys(_VERBS, "orchestrator.verbs"),
    **dict.fromkeys(("Fit", "fit"), "orchestrator.fit"),
    "isoflops": "orchestrator.isoflop",
    "envelope": "orchestrator.envelope",
    **dict.fromkeys(("Data", "Model", "Optimizer", "Resources", "Row", "Rows", "Workload", "setting"), "workers.workload"),
    "Context": "workers.context",
    "load_policy": "workers.swarm.saved",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    # imported at first use: a workload's own file needs a few names, not the whole of the orchestrator
    if name not in _HOMES:
        raise AttributeError(f"eigensweep has no {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

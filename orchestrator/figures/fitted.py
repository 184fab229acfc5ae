"""A fit as a picture: along its variable where there is one, else what it predicts against what was observed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.fit import Fit


def fitted(fit: "Fit", *, ax: Any = None) -> Any:
    """The Axes, with the runs, the law and its band."""
    from orchestrator.figures.scaling import scaling

    return scaling(fit.residuals().rename({"observed": fit.y}), [fit], x=fit.x, y=fit.y, ax=ax)

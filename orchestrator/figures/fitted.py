"""A fit as a picture: along its variable where there is one, else what it predicts against what was observed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.fit import Fit


def fitted(fit: "Fit", *, y_label: str = "", ax: Any = None) -> Any:
    """The Axes: runs, law, band and equation, dashed beyond the data; of a law of several variables the predictions (`predicted`)."""
    if len(fit.columns) > 1:
        from orchestrator.figures.predicted import predicted

        return predicted(fit, y_label=y_label, ax=ax)
    from orchestrator.figures.scaling import scaling

    runs = fit.residuals().rename({"observed": fit.y})
    return scaling(runs, [fit], x=fit.x, y=fit.y, y_label=y_label, ax=ax)

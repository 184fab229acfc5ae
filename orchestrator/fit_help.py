"""What `eigensweep fit --help` says of laws, estimators and options."""

from orchestrator import fit_options
from orchestrator.fitting.estimators import ESTIMATORS

_OPTIONS = (
    ("law.<setting>", "a setting of the law: law.irreducible=false"),
    ("y= or loss=", "the column that is fitted; of a sweep, a scalar (else the first of test_loss, loss, train_loss)"),
    ("group", "rows of one value are resampled together (a column seed, where there is one; none: each row alone)"),
    ("weights", "a column, such as 1 / variance"),
    ("where", "some of the rows: an SQL condition on the columns"),
    ("estimator", f"{', '.join(ESTIMATORS)}, or a delta of the Huber loss (huber, delta 1.345 robust standard deviations)"),
    ("space", "residuals of log y or of y itself: log, linear (log)"),
    ("fixed.<parameter>", "a parameter that is held: fixed.E=1.8"),
    ("reference.<variable>", "where amplitudes are given: reference.n=1e9 (the geometric mean)"),
    ("confidence", "of the intervals (0.95)"),
    ("num_bootstrap", "resampled fits (1000; 0: no intervals)"),
    ("random_seed", "of the resampling (0)"),
    ("AXIS=VALUE", "of a sweep: only these runs; other axes but seed make a fit for each of their values"),
)


def notes() -> str:
    """Laws with their variables, then options."""
    laws = fit_options.laws()
    lines = [f"  {_head(name, variables)}\n      {line}" for name, (variables, line) in laws.items()]
    width = max(len(name) for name, _ in _OPTIONS)
    lines += ["", "words", *(f"  {name:<{width}}  {text}" for name, text in _OPTIONS)]
    return "\n".join(["laws, with the variables that each takes a column for", *lines]) + "\n"


def _head(name: str, variables: tuple[str, ...]) -> str:
    return f"{name} {' '.join(f'{variable}=' for variable in variables)}"

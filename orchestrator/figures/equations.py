"""The equation of a fit as lines of text for a figure, with its intervals."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.fit import Fit, Parameter

_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η"}
_SIZE = 6.5
_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"


def write(
    ax: Any,
    fit: "Fit",
    *,
    corner: str = "below",
    extra: Sequence[str] = (),
    known: Mapping[str, "Parameter"] | None = None,
    margin: float | None = None,
    heading: str = "",
    drop: float = 33.0,
) -> None:
    """The law and its parameters with intervals below the Axes, or in an upper corner ("left", "right"); `extra`: derived numbers; `known`:
    intervals from elsewhere; `margin`: inches of the tick labels, where they are long; `drop`: points below the Axes."""
    from orchestrator.figures import style

    shown = {**fit.parameters, **{name: fit.derived[name] for name in extra if name in fit.derived}, **(known or {})}
    margin = style.MARGIN_INCHES if margin is None else margin
    whole = style.line_inches(ax, margin)
    text = "\n".join([heading] * bool(heading) + lines(fit, shown, whole + margin - 0.4 if corner == "below" else 0.62 * whole, size=_SIZE))
    with style.styled():
        if corner == "below":
            place = {"xytext": (32 - 72 * margin, -drop), "textcoords": "offset points", "va": "top", "annotation_clip": False}
            look = {"xycoords": "axes fraction", "fontsize": _SIZE, "linespacing": 1.45, **place}
            ax.annotate(text, (0, 0), **look).set_in_layout(False)
            # its height for the layout, without its width, which would push the Axes aside
            ax.annotate("\n".join(" " * len(text.split("\n"))), (0, 0), **look)
        else:
            x = 0.98 if corner == "right" else 0.02
            ax.text(x, 0.97, text, transform=ax.transAxes, ha=corner, va="top", fontsize=_SIZE, linespacing=1.4)


def lines(fit: "Fit", shown: Mapping[str, "Parameter"], inches: float, *, size: float) -> list[str]:
    """The law, broken before its sums, and below it `shown`, in lines of at most `inches`."""
    from orchestrator.figures import style

    law = style.wrapped([mathematics(piece) for piece in _terms(fit.equation(intervals=False).replace("$", r"\$"))], inches, size=size)
    values = [f"{symbol(name)} = {_value(one, name in fit.fixed)}" for name, one in shown.items()]
    return [*law, *style.wrapped(values, inches, size=size, between=",  ")]


def _value(one: "Parameter", given: bool) -> str:
    """With its interval; of a parameter that was held, that it was."""
    return f"{one.value:.5g} (given)" if given else mathematics(one.text())


def _terms(equation: str) -> list[str]:
    """Cut before each sum, and after each comma, that stands in no bracket."""
    found, depth = [""], 0
    for piece in equation.split(" "):
        if depth == 0 and found[-1] and (piece == "+" or found[-1].endswith(",")):
            found.append(piece)
        else:
            found[-1] = f"{found[-1]} {piece}".strip()
        depth += piece.count("(") - piece.count(")")
    return found


def symbol(name: str) -> str:
    """The name of a parameter as it stands on a figure: Greek letters, and what follows an underscore lowered where it is one letter."""
    return _GREEK.get(name) or mathematics(name)


def _power_of_ten(number: str) -> str:
    """1.2e-08 as it stands within mathematics, any other number as it is."""
    lead, _, power = number.partition("e")
    return rf"{lead}\cdot 10^{{{int(power)}}}" if power else number


def mathematics(text: str) -> str:
    """Exponents raised, 1.2e+08 as 1.2·10^8, and underscores of column names as spaces."""
    text = re.sub(rf"\^(-{{0,2}})({_NUMBER})", lambda found: f"$^{{{'-' * (len(found[1]) % 2)}{_power_of_ten(found[2])}}}$", text)
    text = re.sub(r"\^(\([^()]*\))", lambda found: f"$^{{{found[1]}}}$".replace(" ", r"\ "), text)
    text = re.sub(r"\b(\d(?:\.\d+)?)e([+-])0*(\d+)", lambda found: f"{found[1]}·10$^{{{found[2].strip('+')}{found[3]}}}$", text)
    text = re.sub(r"(?<=[A-Za-z])_([A-Za-z0-9])(?![A-Za-z0-9_])", r"$_{\1}$", text)
    # of the underscores, those of lowered letters stay
    return re.sub(r"(?<!\$)_", " ", text)

"""Every law: its derivatives, its start, and that a planted one is found from its points; and what a Chinchilla fit implies."""

import numpy as np
import pytest

from orchestrator.fit import fit
from orchestrator.laws.law import Law
from workers import plugins

# reported parameters of a planted law, and the range of each variable
PLANTED: dict[str, tuple[dict[str, object], dict[str, float], dict[str, tuple[float, float]]]] = {
    "power": ({}, {"amplitude": 0.4, "exponent": 0.6, "irreducible": 1.5}, {"x": (1e1, 1e5)}),
    "loglog": ({}, {"amplitude": 3.0, "slope": 0.7}, {"x": (1e1, 1e5)}),
    "chinchilla": ({}, {"loss_n": 0.3, "alpha": 0.35, "loss_d": 0.5, "beta": 0.37, "E": 1.8}, {"n": (1e7, 1e10), "d": (1e8, 1e12)}),
    "overtraining": ({}, {"loss_n": 0.8, "loss_d": 0.6, "eta": 0.13, "E": 1.8}, {"c": (1e17, 1e22), "m": (5.0, 640.0)}),
    "task_error": ({}, {"epsilon": 0.86, "k": 2.2, "gamma": 0.7}, {"loss": (2.4, 5.0)}),
    "data_constrained": (
        {},
        {"A": 520.0, "alpha": 0.35, "B": 1490.0, "beta": 0.36, "E": 1.87, "R_D": 15.0, "R_N": 5.0},
        {"n": (1e7, 1e10), "d": (1e9, 1e12), "u": (1e8, 1e10)},
    ),
    "m3": ({}, {"amplitude": 0.9, "exponent": 0.8, "gamma": 0.05, "irreducible": 0.7}, {"x": (1e1, 1e6)}),
    "m4": ({}, {"floor": 0.2, "range": 1.8, "beta": 1.5, "exponent": 0.6, "alpha": 0.7}, {"x": (1e0, 1e7)}),
    "bnsl": (
        {"breaks": 1},
        {"b": 1.2, "c0": 0.2, "d1": 3e3, "c1": 0.7, "f1": 0.4, "a": 0.1},
        {"x": (1e1, 1e7)},
    ),
}
NUM_POINTS = 120


def made(name: str) -> tuple[Law, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The law, points in random places, the internal parameters and the values of the planted one, centred as `fit` would."""
    settings, values, ranges = PLANTED[name]
    law = plugins.load("laws", name, "orchestrator").from_plain(settings, "law")
    random = np.random.default_rng(0)
    points = {variable: np.exp(random.uniform(*np.log(ends), NUM_POINTS)) for variable, ends in ranges.items()}
    if "u" in points:
        points["u"] = np.minimum(points["u"], points["d"])
    x0 = [1.0] * len(points) if law.own_units else [float(np.exp(np.log(x).mean())) for x in points.values()]
    theta = np.array([term.internal(values[term.name], 1.0, x0) for term in law.terms()])
    u = np.log(np.column_stack(list(points.values())) / np.array(x0))
    return law, points, theta, np.exp(law.log_value(theta[None], u)[0][0])


@pytest.mark.parametrize("name", PLANTED)
def test_derivatives_agree_with_finite_differences(name: str) -> None:
    law, points, theta, _ = made(name)
    x0 = 1.0 if law.own_units else np.exp(np.log(np.column_stack(list(points.values()))).mean(axis=0))
    u = np.log(np.column_stack(list(points.values())) / x0)
    thetas = np.stack([theta, theta + 0.05 * np.random.default_rng(1).standard_normal(len(theta)) * np.minimum(1.0, np.abs(theta))])
    _, jacobian = law.log_value(thetas, u)
    for index in range(len(theta)):
        step = np.zeros(len(theta))
        step[index] = 1e-6
        slope = (law.log_value(thetas + step, u)[0] - law.log_value(thetas - step, u)[0]) / 2e-6
        assert jacobian[:, :, index] == pytest.approx(slope, rel=1e-5, abs=1e-7), law.parameters()[index]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_law_is_found_without_noise(name: str) -> None:
    law, points, theta, y = made(name)
    found = fit({**points, "y": y}, law, y="y", group=None, num_bootstrap=0, **{variable: variable for variable in points})
    assert found.predict(**points) == pytest.approx(y, rel=1e-6)
    x0 = list(found.reference.values())
    y0 = float(np.exp(np.log(y).mean()))
    planted_x0 = [1.0] * len(points) if law.own_units else [float(np.exp(np.log(x).mean())) for x in points.values()]
    for index, term in enumerate(law.terms()):
        assert x0 == pytest.approx(planted_x0)
        expected = float(term.reported(theta[index : index + 1], 1.0, x0)[0])
        assert found.parameters[term.name].value == pytest.approx(expected, rel=2e-3), (term.name, y0)


@pytest.mark.parametrize("name", PLANTED)
def test_the_equation_names_every_value_and_column(name: str) -> None:
    law, points, _, y = made(name)
    found = fit({**points, "target": y}, law, y="target", group=None, num_bootstrap=0, **{variable: variable for variable in points})
    text = found.equation(intervals=False)
    assert "target" in text
    assert all(parameter.text(interval=False) in text for parameter in found.parameters.values())


@pytest.mark.parametrize("name", PLANTED)
def test_reported_and_internal_values_are_inverse(name: str) -> None:
    law, *_ = made(name)
    for term in law.terms():
        value = float(term.reported(np.array([0.3]), 2.5, [7.0, 0.2, 30.0])[0])
        assert term.internal(value, 2.5, [7.0, 0.2, 30.0]) == pytest.approx(0.3)


def chinchilla_table(noise: float = 0.0, draw: int = 0) -> dict[str, np.ndarray]:
    """63 runs of 9 sizes and 7 token multipliers around 1.8 + 480 / n^0.35 + 2000 / d^0.366."""
    size = np.repeat(np.geomspace(1e7, 1e10, 9), 7)
    data = size * np.tile(np.geomspace(3, 200, 7), 9)
    loss = 1.8 + 480 / size**0.35 + 2000 / data**0.366
    return {"n": size, "d": data, "loss": loss * np.exp(noise * np.random.default_rng(draw).standard_normal(63))}


def test_the_optimum_that_a_chinchilla_fit_implies_is_the_least_loss_at_its_compute() -> None:
    found = fit(chinchilla_table(), "chinchilla", n="n", d="d", loss="loss", num_bootstrap=0)
    derived = {name: one.value for name, one in found.derived.items()}
    assert derived["A"] == pytest.approx(480, rel=1e-4) and derived["B"] == pytest.approx(2000, rel=1e-4)
    assert derived["a"] == pytest.approx(0.366 / 0.716, rel=1e-5) and derived["a"] + derived["b"] == pytest.approx(1)
    compute = 1e21
    sizes = np.geomspace(1e8, 1e11, 200_001)
    best = sizes[np.argmin(found.predict(n=sizes, d=compute / 6 / sizes))]
    assert derived["G"] * (compute / 6) ** derived["a"] == pytest.approx(best, rel=1e-4)


def test_tied_exponents_and_no_irreducible_term_are_settings() -> None:
    law = plugins.load("laws", "chinchilla", "orchestrator").from_plain({"tied": True, "irreducible": False}, "law")
    table = chinchilla_table()
    table["loss"] = 480 / table["n"] ** 0.3 + 900 / table["d"] ** 0.3
    found = fit(table, law, n="n", d="d", loss="loss", num_bootstrap=0)
    assert list(found.parameters) == ["loss_n", "exponent", "loss_d"]
    assert found.parameters["exponent"].value == pytest.approx(0.3, rel=1e-5)


def test_repeated_data_are_worth_what_the_law_says() -> None:
    """At one epoch the data-constrained law is Chinchilla's; after many the loss does not fall below that of u (1 + R_D*) tokens."""
    law = plugins.load("laws", "data_constrained", "orchestrator")()
    theta = np.array([[np.log(500.0), 0.35, np.log(1500.0), 0.36, 1.8, np.log(15.0), np.log(1e6)]])
    size, unique = 1e6, 1e8

    def loss(seen: float) -> float:
        return float(np.exp(law.log_value(theta, np.log([[size, seen, unique]]))[0][0, 0]))

    assert loss(unique) == pytest.approx(1.8 + 500 / size**0.35 + 1500 / unique**0.36, rel=1e-9)
    assert loss(1e6 * unique) == pytest.approx(1.8 + 500 / size**0.35 + 1500 / (unique * 16) ** 0.36, rel=1e-9)
    assert loss(2 * unique) > 1.8 + 500 / size**0.35 + 1500 / (2 * unique) ** 0.36

"""Sections of the study of temperature: policies deployed at temperatures that they were not trained at."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from orchestrator.drawings import Drawing
from orchestrator.pairing import CONFIDENCE, Estimate
from orchestrator.study import Section, Table
from orchestrator.study_tables import listed, need
from orchestrator.swarm import runs, transfer
from orchestrator.swarm.over_seeds import few_said, mean
from orchestrator.swarm.proportions import Proportion
from orchestrator.swarm.words import between, estimated, kelvin, rows

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

# p of the clearest outcome of so many trainings a cell
LEAST_P: Mapping[str, Callable[[int], float]] = {
    "McNemar's test": lambda pairs: 2.0 ** (1 - pairs),
    "Fisher's test": lambda num: Proportion(successes=0, trials=num).p_value(Proportion(successes=num, trials=num)),
}
GRADIENT, ROD = "gradient_transfer", "rod_transfer"


def gradient(results: Mapping[str, "Results"]) -> Section:
    """Whether policies that search a source still do so at other temperatures."""
    frame, diverged = runs.deployments(need(results, GRADIENT), ("trained", "deployed", "seed"))
    return _section(frame, diverged, GRADIENT, "success", "Searching a source at other temperatures", "share that succeeds", binary=True)


def rod(results: Mapping[str, "Results"]) -> Section:
    """Whether policies that turn a rod still do so at other temperatures."""
    import polars as pl

    frame, diverged = runs.deployments(need(results, ROD), ("trained", "deployed", "seed"))
    # either way round is as good
    frame = frame.with_columns(pl.col("revolutions_per_hour").abs())
    return _section(
        frame, diverged, ROD, "revolutions_per_hour", "Turning a rod at other temperatures", "revolutions per hour", binary=False
    )


def _section(frame: "pl.DataFrame", diverged: int, name: str, y: str, title: str, label: str, *, binary: bool) -> Section:
    cells = transfer.matrix(frame, "trained", "deployed", y, binary=binary)
    home = transfer.from_home(frame, "trained", "deployed", "seed", y, binary=binary)
    natives = transfer.from_natives(frame, "trained", "deployed", y, binary=binary)
    tests = ("McNemar's test", "Fisher's test") if binary else ("Student's test of pairs", "Welch's test")
    headings = {"trained": "trained at (K)", "deployed": "deployed at (K)", "num": "trainings"}
    return Section(
        title=title,
        findings=[
            *_best_said(frame, y, label, binary=binary),
            *_compared_said(home, "where they were trained", "the same policies", tests[0]),
            *_compared_said(natives, "the policies that were trained there", "policies from elsewhere", tests[1]),
        ],
        drawings=[_matrix(cells, name, title, label), _differences(home, name, label)],
        tables=[
            Table(name=f"{name}-home", heading="Elsewhere less at home, in pairs of one training", rows=rows(home, headings)),
            Table(name=f"{name}-natives", heading="Less what was trained there", rows=rows(natives, headings)),
        ],
        notes=[
            *([f"{diverged} deployments diverged: left out"] if diverged else []),
            *few_said(min(cells["num"].to_list(), default=0), name),
        ],
    )


def _best_said(frame: "pl.DataFrame", y: str, label: str, *, binary: bool) -> list[str]:
    """Each training's mean over all temperatures of deployment, by where it was trained."""
    import polars as pl

    each = frame.filter(pl.col(y).is_finite()).group_by("trained", "seed").agg(pl.col(y).mean())
    parts = sorted(each.partition_by(["trained"], as_dict=True).items())
    means = {t: mean(part[y].to_list()) for (t,), part in parts}
    if not means:
        return []
    told = listed([f"{_said(one, binary=binary)} if trained at {kelvin(t)}" for t, one in means.items()])
    most = max(means, key=lambda t: means[t].value)
    rest = [t for t in means if t != most]
    clear = bool(rest) and all(means[most].minus(means[t]).interval[0] > 0 for t in rest)
    led = f"{kelvin(most)} is highest, " + ("clear of each other by 95 % of its difference" if clear else "not clear of all others")
    return [f"Over all temperatures of deployment, {label}: {told} (means over trainings, 95 % intervals); {led}."]


def _said(one: Estimate, *, binary: bool) -> str:
    """A share stays between 0 and 1; of equal numbers Student's interval would be a point."""
    if one.error == 0:
        return f"{one.value:.3g} (all {one.freedom + 1:g} trainings alike)"
    low, high = one.interval
    return f"{one.value:.3g} {between(max(low, 0.0), min(high, 1.0))}" if binary and low == low else estimated(one)


def _compared_said(table: "pl.DataFrame", beside: str, who: str, test: str) -> list[str]:
    if table.is_empty():
        return [f"How {who} do beside {beside} cannot be said: there are no such pairs of temperatures."]
    counts = dict(table["decided"].value_counts().iter_rows())
    lines = []
    for word in ("worse", "better"):
        own = table.filter(table["decided"] == word).sort("value", descending=word == "better")
        named = [f"{kelvin(row['trained'])} to {kelvin(row['deployed'])} ({row['value']:+.2f})" for row in own.head(4).rows(named=True)]
        lines += [f"{word} in {counts[word]} ({', '.join(named)}{', ...' if len(own) > 4 else ''})"] if len(own) else []
    lines += [f"undecided in {counts['undecided']}"] if "undecided" in counts else []
    num = int(table["num"].max() or 0)  # type: ignore[arg-type]
    hopeless = LEAST_P[test](num) * len(table) >= 1 - CONFIDENCE if test in LEAST_P else num < 2
    few = " With so few trainings no outcome of one pair alone could be decided." if hopeless else ""
    return [
        f"Of {len(table)} pairs of temperatures, {who} do, beside {beside}, {listed(lines)} ({test}, Holm's correction for all pairs).{few}"
    ]


def _matrix(cells: "pl.DataFrame", name: str, title: str, label: str) -> Drawing:
    from orchestrator.figures.transfer_matrix import transfer_matrix

    ax = transfer_matrix(cells, title=title, unit="K", label=label)
    caption = (
        "Means over trainings with 95 % intervals; framed: deployed where they were trained. The paper's own values are not known here."
    )
    return Drawing(name=name.replace("_", "-"), ax=ax, caption=caption)


def _differences(home: "pl.DataFrame", name: str, label: str) -> Drawing:
    from orchestrator.figures.transfer_matrix import transfer_matrix

    worse, better = ((home["decided"] == word).sum() for word in ("worse", "better"))
    title = f"Elsewhere less at home: worse in {worse}, better in {better} of {len(home)}"
    ax = transfer_matrix(home, title=title, unit="K", label=f"difference in {label}", diverging=True, form="+.2f")
    caption = "In pairs of one training; 95 % intervals. Arrows: decided after Holm's correction."
    return Drawing(name=f"{name.replace('_', '-')}-home", ax=ax, caption=caption)

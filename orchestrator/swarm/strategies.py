"""Strategies by their policies: what an agent does where the concentration rises, and where it falls (arXiv 2404.01999)."""

# O observations; A actions

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]

__all__ = ["ACTIONS", "NAMES", "STRATEGIES", "Policy", "Strategy", "classify", "folded", "policies", "table"]

ACTIONS = ("ccw", "forward", "cw", "nothing")
NAMES = {
    "run_and_rotate": "Run and Rotate",
    "brownian_piloting": "Brownian Piloting",
    "gradient_gliding": "Gradient Gliding",
    "search_and_sit": "Search and Sit",
    "exotic": "Exotic",
}
STRATEGIES = tuple(NAMES)
# observed changes above which the concentration rises, and the share of the least one below which it falls steeply
RISING = 0.3
FALLING_SHARE = 0.5
LEAST_FALL = -0.4
# probabilities of the rules
SWIMS = 0.8
MOSTLY = 0.6
MIXED = 0.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Policy:
    """pi(a | o): `probabilities` (O, A) of ACTIONS at ascending `observations` (O,)."""

    observations: "Array"
    probabilities: "Array"

    def where(self, low: float, high: float) -> dict[str, float]:
        """Mean probability of each action over observations from `low` to `high`, both within."""
        good = (self.observations >= low) & (self.observations <= high)
        if not good.any():
            raise ConfigError(
                f"the policy has no observation from {low} to {high}: it has {self.observations[0]} to {self.observations[-1]}"
            )
        return dict(zip(ACTIONS, (float(one) for one in self.probabilities[good].mean(axis=0)), strict=True))

    def folded(self) -> "Array":
        """Probabilities with the two turns exchanged where clockwise is the more frequent: mirror images count as one."""
        ccw, cw = ACTIONS.index("ccw"), ACTIONS.index("cw")
        order = list(range(len(ACTIONS)))
        if self.probabilities[:, cw].sum() > self.probabilities[:, ccw].sum():
            order[ccw], order[cw] = cw, ccw
        mirrored: Array = self.probabilities[:, order]
        return mirrored


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """`rising`, `falling`: mean probabilities of actions there; `strongest`: where it rises most. `handedness`: the more frequent turn
    where it falls, empty where agents hardly turn."""

    name: str
    handedness: str
    rising: dict[str, float]
    falling: dict[str, float]
    strongest: dict[str, float]

    @property
    def evidence(self) -> str:
        """`rising: forward 0.99; falling: ccw 0.93, cw 0.05`."""
        parts = {"rising": self.rising, "falling": self.falling}
        return "; ".join(f"{place}: {', '.join(_most(own))}" for place, own in parts.items())


def _most(own: dict[str, float]) -> list[str]:
    return [f"{name} {value:.2f}" for name, value in sorted(own.items(), key=lambda one: -one[1]) if value >= 0.05]


def classify(policy: Policy) -> Strategy:
    """By the rules of `_name`; ConfigError where the policy was not evaluated at falls of LEAST_FALL and less."""
    lowest, highest = float(policy.observations[0]), float(policy.observations[-1])
    if lowest > LEAST_FALL or highest < RISING:
        raise ConfigError(f"a strategy shows from {LEAST_FALL} and below to {RISING} and above; the policy has {lowest} to {highest}")
    rising = policy.where(RISING, highest)
    falling = policy.where(lowest, FALLING_SHARE * lowest)
    strongest = policy.where(max(RISING, 0.9 * highest), highest)
    turns = {name: falling[name] for name in ("ccw", "cw")}
    handedness = max(turns, key=lambda name: turns[name]) if max(turns.values()) >= MIXED else ""
    name = _name(policy, rising, falling, strongest)
    return Strategy(name=name, handedness=handedness, rising=rising, falling=falling, strongest=strongest)


def _name(policy: Policy, rising: dict[str, float], falling: dict[str, float], strongest: dict[str, float]) -> str:
    """All but one swim where the concentration rises (p > SWIMS), and differ in what they do where it falls: turn one way, do nothing
    (MOSTLY), or turn and swim in turns (each at least MIXED, together SWIMS). One that sits stops where it rises most."""
    turn = falling["ccw"] + falling["cw"]
    if rising["forward"] > SWIMS:
        if max(falling["ccw"], falling["cw"]) >= MOSTLY:
            return "run_and_rotate"
        if falling["nothing"] >= MOSTLY:
            return "brownian_piloting"
        if min(turn, falling["forward"]) >= MIXED and turn + falling["forward"] >= SWIMS:
            return "gradient_gliding"
    if strongest["nothing"] >= MOSTLY and policy.probabilities[policy.observations > 0, ACTIONS.index("forward")].max() >= MOSTLY:
        return "search_and_sit"
    return "exotic"


def policies(frame: "pl.DataFrame", key: str = "key") -> dict[Any, Policy]:
    """Of each task in a table of columns `key`, observation, action, probability; ConfigError where they are no distributions."""
    import numpy as np
    import polars as pl

    found: dict[Any, Policy] = {}
    unknown = set(frame["action"].unique()) - set(ACTIONS)
    if unknown:
        raise ConfigError(f"actions are {', '.join(ACTIONS)}, got {', '.join(sorted(map(str, unknown)))}")
    for (one,), part in frame.partition_by([key], as_dict=True, maintain_order=True).items():
        wide = part.pivot(on="action", index="observation", values="probability", aggregate_function="mean").sort("observation")
        wide = wide.with_columns(pl.lit(0.0).alias(name) for name in ACTIONS if name not in wide.columns)
        probabilities = wide.select(ACTIONS).fill_null(0.0).to_numpy()
        if not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-3):
            raise ConfigError(f"probabilities of task {one} do not sum to 1 at each observation")
        found[one] = Policy(observations=wide["observation"].to_numpy(), probabilities=probabilities)
    return found


def table(frame: "pl.DataFrame", key: str = "key") -> "pl.DataFrame":
    """A row a task: `key`, strategy, handedness, evidence, and `falling_ACTION`, `rising_ACTION` of each action."""
    import polars as pl

    rows = []
    for one, policy in policies(frame, key).items():
        found = classify(policy)
        numbers = {
            f"{place}_{name}": own[name] for place, own in (("falling", found.falling), ("rising", found.rising)) for name in ACTIONS
        }
        rows.append({key: one, "strategy": found.name, "handedness": found.handedness, "evidence": found.evidence, **numbers})
    reals = [f"{place}_{name}" for place in ("falling", "rising") for name in ACTIONS]
    words = dict.fromkeys(("strategy", "handedness", "evidence"), pl.String)
    return pl.DataFrame(rows, schema={key: frame.schema[key], **words, **dict.fromkeys(reals, pl.Float64)})


def folded(frame: "pl.DataFrame", key: str = "key") -> "pl.DataFrame":
    """The table of policies with the two turns of a task exchanged where clockwise is the more frequent (`Policy.folded`)."""
    import polars as pl

    ccw, cw = (pl.col("probability").filter(pl.col("action") == name).sum() for name in ("ccw", "cw"))
    is_mirrored = (cw > ccw).over(key)
    exchanged = pl.col("action").replace({"cw": "ccw", "ccw": "cw"})
    return frame.with_columns(action=pl.when(is_mirrored).then(exchanged).otherwise(pl.col("action")))

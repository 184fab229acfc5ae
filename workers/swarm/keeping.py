"""Which episodes' policies are kept: four rules, of the mean returns of one policy alone."""

from dataclasses import dataclass
from typing import Any

from workers.errors import ConfigError
from workers.settings import Settings, setting

State = dict[str, Any]
REASONS = ("regular", "best", "decline", "goal")


@dataclass(frozen=True, kw_only=True)
class Keeping(Settings):
    """Rules for keeping the weights of a policy after an episode; each is off at 0, None or false.

    A smoothed return is the mean over the last `window` episodes. Rules of one episode are heard in the order of REASONS.
    """

    every: int = setting(0, low=0, help="episodes between two that are kept in any case; 0: none")
    best: bool = setting(False, help="keep where the smoothed return is higher than at the last such episode")
    best_least: float = setting(250.0, help="and at least this")
    best_increase: float = setting(1.01, low=1.0, help="and so many times as high")
    best_wait: int = setting(10, low=1, help="and so many episodes later")
    decline: float = setting(0.0, low=0.0, high=1.0, help="keep where the smoothed return fell by this share of its highest; 0: never")
    goal: float | None = setting(None, help="keep where the smoothed return is first so high; null: never")
    goal_stops: bool = setting(False, help="train no further then")
    window: int = setting(30, low=1, help="episodes over which returns are smoothed")
    num_kept: int = setting(3, low=1, help="of each reason, the latest ones; the older ones may go")

    def check(self) -> None:
        """A goal that stops is one."""
        if self.goal_stops and self.goal is None:
            raise ConfigError("goal must be a number where goal_stops is true, got null")

    @property
    def is_active(self) -> bool:
        """Whether there is any rule."""
        return bool(self.every or self.best or self.decline or self.goal is not None)

    def begin(self) -> State:
        """Of a policy before its first episode; plain values, which a checkpoint keeps as they are."""
        return {"recent": [], "best": None, "best_at": None, "highest": None, "declined": False, "reached": False, "kept": []}

    def decide(self, state: State, episode: int, mean_return: float) -> tuple[State, str]:
        """The state after an episode (numbered from 0), and why its policy is kept; empty: it is not.

        A mean return that is not finite keeps nothing but what is kept in any case, and smooths nothing.
        """
        state = state | {"recent": list(state["recent"]), "kept": list(state["kept"])}
        reasons = {"regular"} if self.every and (episode + 1) % self.every == 0 else set()
        if abs(mean_return) < float("inf"):
            state["recent"] = [*state["recent"], float(mean_return)][-self.window :]
            if len(state["recent"]) == self.window:
                reasons |= self._smoothed(state, episode, sum(state["recent"]) / self.window)
        reason = ",".join(one for one in REASONS if one in reasons)
        if reason:
            state["kept"] = self._latest([*state["kept"], [episode, reason]])
        return state, reason

    def stops(self, state: State) -> bool:
        """Whether the policy has reached its goal and shall train no further."""
        return self.goal_stops and bool(state["reached"])

    def _smoothed(self, state: State, episode: int, value: float) -> set[str]:
        """Reasons that a smoothed return gives; `state` is changed."""
        reasons = set()
        if self.best and self._is_best(state, episode, value):
            state["best"], state["best_at"] = value, episode
            reasons.add("best")
        if state["highest"] is None or value > state["highest"]:
            state["highest"], state["declined"] = value, False
        elif self.decline and not state["declined"] and value < state["highest"] - self.decline * abs(state["highest"]):
            state["declined"] = True
            reasons.add("decline")
        if self.goal is not None and not state["reached"] and value >= self.goal:
            state["reached"] = True
            reasons.add("goal")
        return reasons

    def _is_best(self, state: State, episode: int, value: float) -> bool:
        if value < self.best_least:
            return False
        if state["best"] is None:
            return True
        higher = state["best"] + (self.best_increase - 1.0) * abs(state["best"])
        return bool(value > state["best"] and value >= higher and episode - state["best_at"] >= self.best_wait)

    def _latest(self, kept: list[Any]) -> list[Any]:
        """Those that are among the latest `num_kept` of any of their reasons."""
        wanted: list[Any] = []
        for reason in REASONS:
            wanted += [one for one in kept if reason in one[1].split(",")][-self.num_kept :]
        return [one for one in kept if one in wanted]

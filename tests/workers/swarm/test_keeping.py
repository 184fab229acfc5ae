"""Which episodes' policies are kept."""

import json
import math

import pytest

from workers.errors import ConfigError
from workers.swarm.keeping import Keeping


def kept(keeping: Keeping, returns: list[float]) -> dict[int, str]:
    """Reasons by episode; the state goes through JSON after each of them."""
    state, found = keeping.begin(), {}
    for episode, value in enumerate(returns):
        before = json.dumps(state)
        new, reason = keeping.decide(state, episode, value)
        assert json.dumps(state) == before
        state = json.loads(json.dumps(new))
        assert state == new
        if reason:
            found[episode] = reason
    return found


def test_by_default_nothing_is_kept():
    assert kept(Keeping(), [float(1000 * n) for n in range(100)]) == {}


def test_every_so_many_episodes_are_kept_whatever_they_return():
    assert kept(Keeping(every=3), [1.0, 2.0, math.nan, -1.0, 0.0, math.inf, 7.0]) == {2: "regular", 5: "regular"}


def test_the_best_are_kept_once_high_enough_higher_enough_and_late_enough():
    best = Keeping(best=True, best_least=10, best_increase=1.1, best_wait=3, window=1)
    assert kept(best, [5, 10, 20, 9, 10.9]) == {1: "best"}
    assert kept(best, [5, 10, 20, 9, 11.0]) == {1: "best", 4: "best"}
    assert kept(best, [5, 10, 20, 20, 20, 20, 22, 22]) == {1: "best", 4: "best", 7: "best"}
    # of a mean over a window, which has to be full
    assert kept(Keeping(best=True, best_least=10, window=3), [100.0, 0.0, 0.0, 0.0, 30.0]) == {2: "best"}


def test_an_increase_of_what_is_below_zero_goes_up():
    best = Keeping(best=True, best_least=-100, best_increase=1.5, best_wait=1, window=1)
    assert kept(best, [-10, -9, -5, -1]) == {0: "best", 2: "best", 3: "best"}
    assert kept(best, [0.0, 0.0, 1.0]) == {0: "best", 2: "best"}


def test_a_decline_is_kept_once_until_a_new_highest():
    decline = Keeping(decline=0.2, window=1)
    assert kept(decline, [10, 8, 7.9, 5, 9, 7, 11, 10, 8.7]) == {2: "decline", 8: "decline"}
    assert kept(decline, [-10, -11, -12, -12.1]) == {3: "decline"}


def test_a_goal_is_kept_once_and_stops_where_it_shall():
    goal = Keeping(goal=20, window=2)
    assert kept(goal, [30, 10, 40, 40]) == {1: "goal"}
    stopping, state = Keeping(goal=20, goal_stops=True, window=2), goal.begin()
    stops = []
    for episode, value in enumerate([10, 10, 40, 0]):
        state, _ = stopping.decide(state, episode, value)
        stops.append(stopping.stops(state))
        assert not goal.stops(state)
    assert stops == [False, False, True, True]


def test_several_reasons_of_one_episode_are_named_together_and_old_ones_may_go():
    keeping = Keeping(every=2, goal=3, best=True, best_least=0, best_wait=1, window=1, num_kept=2)
    assert kept(keeping, [0, 3, 3, 2]) == {0: "best", 1: "regular,best,goal", 3: "regular"}
    state = keeping.begin()
    for episode in range(9):
        state, _ = keeping.decide(state, episode, float(episode))
    # 3: the goal; 5 and 7: regular; 7 and 8: best
    assert [episode for episode, _ in state["kept"]] == [3, 5, 7, 8]


def test_returns_that_are_no_numbers_leave_the_means_as_they_are():
    best = Keeping(best=True, best_least=10, best_wait=1, window=2)
    assert kept(best, [10.0, math.nan, math.inf, 10.0]) == {3: "best"}


def test_a_goal_that_stops_has_to_be_given():
    with pytest.raises(ConfigError, match="goal must be a number where goal_stops is true, got null"):
        Keeping(goal_stops=True)

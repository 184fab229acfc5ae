"""Short forms of SLURM, against the long ones."""

import pytest

from orchestrator.slurm.brackets import hosts, indices
from orchestrator.slurm.constraint import features, fits
from orchestrator.slurm.times import seconds


@pytest.mark.parametrize(
    ("text", "long"),
    [
        ("n1", ["n1"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[08-11],m5", ["n08", "n09", "n10", "n11", "m5"]),
        ("n[1,3-4]-ib", ["n1-ib", "n3-ib", "n4-ib"]),
        ("r[1-2]c[01-02]", ["r1c01", "r1c02", "r2c01", "r2c02"]),
        ("a,b,c", ["a", "b", "c"]),
        ("", []),
        ("(null)", []),
        ("None assigned", []),
    ],
)
def test_hosts_are_listed(text: str, long: list[str]) -> None:
    assert list(hosts(text)) == long


def test_a_list_that_names_more_hosts_than_there_are_ends() -> None:
    assert len(hosts("n[0-99999999]")) == 100_000


@pytest.mark.parametrize(
    ("text", "long"),
    [
        ("4", [4]),
        ("0-3", [0, 1, 2, 3]),
        ("[3-6,8-9%2]", [3, 4, 5, 6, 8, 9]),
        ("[0-10:5]", [0, 5, 10]),
        ("[1,5]%1", [1, 5]),
        ("[0-3,7,...]", [0, 1, 2, 3, 7]),
        ("[0-3,1...", [0, 1, 2, 3]),
        ("N/A", []),
    ],
)
def test_elements_of_an_array_are_listed(text: str, long: list[int]) -> None:
    assert [index for one in indices(text) for index in one] == long


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0:03", 3),
        ("2:33", 153),
        ("1:00:00", 3600),
        ("1-00:00:00", 86400),
        ("2-03:04:05", 2 * 86400 + 3 * 3600 + 4 * 60 + 5),
        ("1-06", 86400 + 6 * 3600),
        ("30", 1800),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("N/A", None),
        ("NOT_SET", None),
        ("", None),
    ],
)
def test_lengths_of_time(text: str, number: float | None) -> None:
    assert seconds(text) == number


@pytest.mark.parametrize(
    ("expression", "has", "good"),
    [
        ("", "", True),
        ("a", "a b", True),
        ("a", "b", False),
        ("a&b", "a b", True),
        ("a&b", "a", False),
        ("a|b", "b", True),
        # strictly from left to right, as sbatch's manual says
        ("a|b&c", "a", False),
        ("a|b&c", "a c", True),
        ("a&b|c", "c", True),
        ("a&(b|c)", "a c", True),
        ("a&(b|c)", "c", False),
        ("[a|b]", "b", True),
        ("[(a|b)*1&c*2]", "x", True),  # different nodes, so none is ruled out
        ("a&(b|", "a b", True),
    ],
)
def test_a_constraint_chooses_nodes(expression: str, has: str, good: bool) -> None:
    assert fits(expression, has.split()) is good


def test_features_of_a_constraint() -> None:
    assert features("[(ice-lake|zen4)*1&ib*2]&zen4") == ("ice-lake", "zen4", "ib")

"""Every part of swarms loads by its name, is valid at its defaults, and is read back from what it writes."""

import json

import pytest

from workers import plugins
from workers.swarm.parts import SwarmPart

GROUPS = ("swarm.observables", "swarm.tasks", "swarm.actions", "swarm.agents", "swarm.learners")
PARTS = [(group, name) for group in GROUPS for name in plugins.names(group)]


def test_there_are_parts_of_each_group():
    assert {group for group, _ in PARTS} == set(GROUPS)


@pytest.mark.parametrize(("group", "name"), PARTS)
def test_a_part_is_read_back_from_its_plain_settings(group: str, name: str):
    part = plugins.load(group, name)()
    plain = json.loads(json.dumps(part.to_plain()))
    assert plain["name"] == name
    assert plugins.load(group, name).from_plain(plain) == part


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, name in PARTS if issubclass(plugins.load(group, name), SwarmPart)])
def test_a_part_says_where_it_works(group: str, name: str):
    part = plugins.load(group, name)()
    assert part.dimensions and set(part.dimensions) <= {2, 3}
    part.require(2, rod=True)

"""A key is what a task is: the same for the same content however it is written, another for any other content.

A golden key changes only with the `version` of its class; run this file to write new ones.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from grid_package.deep import Deep
from grid_package.kernel import Kernel
from grid_package.modes import Modes
from grid_package.study import Study
from grid_package.table import Table
from grid_package.wide import Wide
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.identity import canonical, task_key
from workers import plugins
from workers.settings import setting
from workers.workload import Workload
from workers.workloads.noop import Noop

GOLDEN = Path(__file__).parent.parent / "golden" / "keys.json"
CONTENT = {"data": "0" * 64}
STUDY_KEY = "a" * 26

numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=1e-6, max_value=1e6)
models = st.builds(Wide, width=st.integers(1, 99), slope=numbers) | st.builds(
    Deep, width=st.integers(1, 99), layers=st.lists(st.integers(0, 9)).map(tuple)
)
studies = st.builds(
    Study, model=models, train_size=st.integers(1, 99), rate=numbers, label=st.sampled_from("ab"), seed=st.integers(0, 99), momentum=numbers
)


def study_key(study: Study, content: dict[str, str] = CONTENT) -> str:
    return task_key(study, content, {})


def slow_key(workload: Workload) -> str:
    """With a made-up content for each data set."""
    return task_key(workload, CONTENT, {name: slow_key(value) for name, value in workload.inputs().items()})


def golden_keys() -> dict[str, str]:
    kernel = Kernel(step=3)
    return {
        **{
            name: slow_key(plugins.load("workloads", name)())
            for name in ("train", "gram", "spectrum", "swarm_train", "swarm_deploy", "swarm_classical")
        },
        "noop": task_key(Noop(), {}, {}),
        "noop index=7 seconds=0.5 fail=kill": task_key(Noop(index=7, seconds=0.5, fail="kill"), {}, {}),
        "study": study_key(Study()),
        "study wide rate=1": study_key(Study(rate=1, model=Wide(width=64, slope=0.25))),
        "study deep": study_key(Study(model=Deep(layers=(1, 2)))),
        "study momentum": study_key(Study(momentum=0.9)),
        "kernel": task_key(kernel, {}, {"study": STUDY_KEY}),
        "modes": task_key(Modes(), {}, {"kernel": task_key(kernel, {}, {"study": STUDY_KEY})}),
        "modes count=3": task_key(Modes(count=3), {}, {"kernel": task_key(kernel, {}, {"study": STUDY_KEY})}),
    }


def test_golden_keys():
    assert golden_keys() == json.loads(GOLDEN.read_text())


def test_the_canonical_text_reads_as_documented():
    text = canonical(Study(rate=0.5, model=Wide(width=2)), {"data": "ab"}, {})
    assert text == (
        'grid_package.study@1(data=grid_package.table@1#ab(scale=0x1.0000000000000p+0),label="a",'
        "model=grid_package.wide@1(slope=0x0.0p+0,width=2),rate=0x1.0000000000000p-1,seed=0,train_size=64)"
    )


@given(studies)
def test_a_key_is_26_lower_case_letters_and_digits(study: Study):
    assert len(study_key(study)) == 26
    assert set(study_key(study)) <= set("abcdefghijklmnopqrstuvwxyz234567")


@given(studies)
def test_the_order_of_settings_and_a_round_trip_change_nothing(study: Study):
    plain = study.to_plain()
    turned = {name: dict(reversed(value.items())) if isinstance(value, dict) else value for name, value in plain.items()}
    backwards = dict(reversed(turned.items()))
    assert study_key(Study.from_plain(backwards)) == study_key(study)
    assert study_key(Study.from_plain(json.loads(json.dumps(plain)))) == study_key(study)


@pytest.mark.parametrize("rate", ["1", "1.0", "1e0", "+1.000"])
def test_one_number_has_one_key(rate: str):
    from orchestrator.overrides import parse_one

    number = parse_one(f"x={rate.lstrip('+')}").value
    assert study_key(Study(rate=number)) == study_key(Study(rate=1))
    assert study_key(Study(train_size=number)) == study_key(Study(train_size=1))


def test_minus_zero_is_zero():
    assert study_key(Study(model=Wide(slope=-0.0))) == study_key(Study(model=Wide(slope=0)))


@given(studies, studies)
def test_two_studies_share_a_key_only_where_they_are_equal(one: Study, other: Study):
    assert (study_key(one) == study_key(other)) == (one == other)


@given(studies, st.sampled_from(["model", "train_size", "rate", "label", "seed", "momentum"]), st.data())
def test_any_change_of_meaning_changes_the_key(study: Study, name: str, data: st.DataObject):
    other = data.draw(studies.filter(lambda other: getattr(other, name) != getattr(study, name)))
    assert study_key(dataclasses.replace(study, **{name: getattr(other, name)})) != study_key(study)


def test_what_is_no_part_of_the_identity_is_left_out():
    assert study_key(Study(log_every=9)) == study_key(Study())
    assert study_key(Study(data=Table(path="/elsewhere"))) == study_key(Study())


def test_a_field_that_came_later_is_left_out_while_it_has_its_default():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Before(Workload):
        seed: int = 0

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class After(Workload):
        seed: int = 0
        momentum: float = setting(0.0, added=True)

    assert task_key(Before(seed=3), {}, {}) == task_key(After(seed=3), {}, {}) == task_key(After(seed=3, momentum=0.0), {}, {})
    assert task_key(After(seed=3, momentum=0.5), {}, {}) != task_key(After(seed=3), {}, {})


def test_a_data_set_that_came_later_always_enters():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class After(Workload):
        probe: Table = setting(Table(), added=True)

    assert task_key(After(), {"probe": "a"}, {}) != task_key(After(), {"probe": "b"}, {})


def test_other_content_and_another_input_have_another_key():
    assert study_key(Study(), {"data": "1" * 64}) != study_key(Study())
    assert task_key(Kernel(), {}, {"study": "a" * 26}) != task_key(Kernel(), {}, {"study": "b" * 26})


def test_a_changed_version_of_the_workload_or_a_plugin_changes_the_key(monkeypatch: pytest.MonkeyPatch):
    before = study_key(Study())
    monkeypatch.setattr(Wide, "version", 2)
    changed_model = study_key(Study())
    monkeypatch.setattr(Study, "version", 2)
    assert len({before, changed_model, study_key(Study())}) == 3


@pytest.mark.parametrize("hash_seed", ["0", "1", "31337"])
def test_keys_do_not_depend_on_place_process_or_hash_seed(hash_seed: str, tmp_path: Path):
    root = Path(__file__).parents[2]
    script = f"import json, runpy; print(json.dumps(runpy.run_path({str(Path(__file__))!r})['golden_keys']()))"
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{root}:{root / 'tests'}", "HOSTNAME": f"host-{hash_seed}"}
    out = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden_keys(), indent=2) + "\n")

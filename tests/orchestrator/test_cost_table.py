"""All that a job was paid for appears once in the table: of use, continued by another attempt, or wasted for a cause."""

import json
from typing import Any

import polars as pl
import pytest
import store_fakes as fakes
from store_fakes import commit, fake_sweeps, write_sweep  # noqa: F401

from orchestrator import attempts, cost, cost_table
from orchestrator import ledger as ledgers
from orchestrator.collect import compact
from orchestrator.results import load
from orchestrator.store import Store
from workers import files, taskdir
from workers.errors import UnknownName

BASE = "w1-0123456789ab"
SHAPE = {"nodes": 1, "cpus": 4, "gpus": 1, "memory_gib": 8.0, "walltime_minutes": 60.0}
# two tasks at once, each on half a GPU
PACKED = {"nodes": 1, "cpus": 8, "gpus": 1, "memory_gib": 17.0, "minutes": 90, "slots": 2, "tasks_per_gpu": 2, "shape": SHAPE}
ALONE = PACKED | {"slots": 1, "cpus": 4, "tasks_per_gpu": 1}
SHARE = {"cpus": 4, "gpus": 0.5, "slots": 1}
WHOLE = {"cpus": 4, "gpus": 1, "slots": 1}


def start(key: str, attempt: str, time: float) -> dict[str, Any]:
    return {"event": "start", "key": key, "attempt": attempt, "time": time, "log": ["log-0", 0]}


def end(key: str, attempt: str, outcome: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {"event": "end", "key": key, "attempt": attempt, "class": outcome, "seconds": seconds, "time": 0.0, **more}


def write_run(store: Store, token: str, run: int, events: list[dict[str, Any]], beat: float = 0.0) -> None:
    folder = taskdir.batch_dir(store.root, token)
    below = taskdir.run_dir(folder, run)
    below.mkdir(parents=True, exist_ok=True)
    (folder / taskdir.receipt_name(run)).write_bytes(files.encode({"token": token, "time": 0.0, "host": f"n{run + 1}"}))
    (below / "attempts.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if beat:
        (below / "heartbeat.json").write_bytes(files.encode({"count": 1, "time": beat}))


def submit(store: Store, jobs: list[list[str]], request: dict[str, Any], base: str = BASE) -> ledgers.Ledger:
    ledger = ledgers.read(store.root)
    entry = {"kind": "submission", "token": base, "sweep": "w1", "code": "c0de", "launcher": {"name": "slurm"}, "driver": "", "jobs": jobs}
    assert ledgers.append(store.root, ledger, entry | {"request": request})
    files.make_dirs(taskdir.batch_dir(store.root, base))
    (taskdir.batch_dir(store.root, base) / "job.json").write_bytes(files.encode({"job_id": "77"}))
    return ledger


def close(store: Store, token: str, outcomes: dict[str, list[dict[str, Any]]] | None = None, **job: Any) -> None:
    ledger = ledgers.read(store.root)
    batch = {"token": token, "sweep": "w1", "outcomes": outcomes or {}, "job": job}
    assert ledgers.append(store.root, ledger, {"kind": "closed", "batches": [batch]})


@pytest.fixture
def keys(store: Store) -> list[str]:
    return write_sweep(store, "w1", [{"width": 32 * (i // 2 + 1), "seed": i % 2} for i in range(4)])


@pytest.fixture
def packed(store: Store, keys: list[str]) -> list[str]:
    """One job of four tasks in two slots that lasted 100 s: 40 s of use, 20 s for an error, 30 s killed with it, 10 s completed twice."""
    submit(store, [keys], PACKED)
    names = [f"{BASE}-{i}-0-abcde{i}" for i in range(4)]
    write_run(
        store,
        BASE,
        0,
        [
            start(keys[0], names[0], 1.0),
            end(keys[0], names[0], "completed", 40.0, **SHARE),
            start(keys[1], names[1], 1.0),
            end(keys[1], names[1], "user_error", 20.0, error={"type": "ValueError", "fingerprint": "f", "traceback": "t"}, **SHARE),
            start(keys[2], names[2], 50.0),
            start(keys[3], names[3], 50.0),
            end(keys[3], names[3], "superseded", 10.0, **SHARE),
        ],
        beat=80.0,
    )
    commit(store, keys[0], ["w1"], attempt=names[0], seconds=40.0)
    commit(store, keys[3], ["w1"], attempt="inline-1-0-0-abc")
    close(store, BASE, seconds=100.0, job_id="77", cause="node_failure", nodes=["n1"], reason="NODE_FAIL", energy_joules=600.0)
    return keys


def rows(store: Store, **chosen: Any) -> pl.DataFrame:
    found = load("w1", store.root).costs().collect()
    for name, value in chosen.items():
        found = found.filter(pl.col(name) == value)
    return found


def total(frame: pl.DataFrame) -> dict[str, float]:
    return {measure: frame[measure].sum() for measure in cost.MEASURES}


def test_attempts_and_overhead_together_are_what_the_job_cost_before_and_after_compaction(store: Store, packed: list[str]) -> None:
    expected = cost.of_job(PACKED, 100.0)
    before = rows(store)
    assert total(before.filter(pl.col("batch") == BASE)) == pytest.approx(expected)
    assert compact(store, ledgers.read(store.root)) == 1
    assert compact(store, ledgers.read(store.root)) is None
    after = rows(store)
    assert total(after.filter(pl.col("batch") == BASE)) == pytest.approx(expected, rel=1e-6)
    columns = ["key", "attempt", "kind", "cause", "width", "seed"]
    assert sorted(before.select(columns).rows(), key=str) == sorted(after.select(columns).rows(), key=str)


def test_each_second_is_told_apart_by_what_became_of_it(store: Store, packed: list[str]) -> None:
    seconds = {
        (row["kind"], row["cause"]): row["node_hours"] * 3600 * 2 for row in load("w1", store.root).cost(["kind", "cause"]).to_dicts()
    }
    assert seconds == pytest.approx(
        {
            ("useful", "completed"): 40.0,
            ("wasted", "user_error"): 20.0,
            ("wasted", "node_failure"): 30.0,  # from its start to the job's last sign of life
            ("wasted", "superseded"): 10.0,
            ("wasted", "overhead"): 100.0,  # of the 200 that two slots have
        }
    )


def test_overhead_and_energy_are_shared_by_time_and_slots(store: Store, packed: list[str]) -> None:
    overhead = rows(store, cause="overhead")
    by_key = dict(overhead.group_by("key").agg(pl.col("gpu_hours").sum()).rows())
    assert [by_key[key] / sum(by_key.values()) for key in packed] == pytest.approx([0.4, 0.2, 0.3, 0.1])
    joules = dict(rows(store).drop_nulls("attempt").select("key", "energy_joules").drop_nulls().rows())
    assert [joules[key] for key in packed] == pytest.approx([240.0, 120.0, 180.0, 60.0])


def test_the_energy_that_a_job_has_measured_itself_is_its_own_where_the_scheduler_says_none(store: Store, keys: list[str]) -> None:
    submit(store, [keys], PACKED)
    name = f"{BASE}-0-0-abcdef"
    over = {"event": "over", "reason": "finished", "time": 9.0, "energy_joules": 50.0}
    write_run(store, BASE, 0, [start(keys[0], name, 1.0), end(keys[0], name, "completed", 8.0, **SHARE), over])
    commit(store, keys[0], ["w1"], attempt=name)
    close(store, BASE, seconds=10.0)
    compact(store, ledgers.read(store.root))
    results = load("w1", store.root)
    assert results.jobs().collect()["energy_joules"].to_list() == [50.0]
    assert results.attempts().collect()["energy_joules"].to_list() == [50.0]
    assert cost_table.table(results).total.joules == 50.0


def test_the_group_of_an_axis_value_has_tasks_attempts_and_what_was_wasted(store: Store, packed: list[str]) -> None:
    by_width = {row["width"]: row for row in load("w1", store.root).cost("width").to_dicts()}
    assert [by_width[width]["tasks"] for width in (32, 64)] == [2, 2]
    assert [by_width[width]["attempts"] for width in (32, 64)] == [2, 3]
    job = cost.of_job(PACKED, 100.0)
    assert by_width[32]["cpu_hours"] + by_width[64]["cpu_hours"] == pytest.approx(job["cpu_hours"], rel=1e-6)
    # 20 s for the error and 60 of the 100 s of overhead
    assert by_width[32]["wasted_cpu_hours"] == pytest.approx(80 / 200 * job["cpu_hours"], rel=1e-6)
    with pytest.raises(UnknownName, match="no column 'widht' to tell costs apart by; did you mean 'width'"):
        load("w1", store.root).cost("widht")


def test_a_killed_attempt_has_the_schedulers_cause_the_host_and_the_job(store: Store, packed: list[str]) -> None:
    compact(store, ledgers.read(store.root))
    found = {row["key"]: row for row in load("w1", store.root).attempts().collect().to_dicts() if row["batch"]}
    lost = found[packed[2]]
    assert (lost["class"], lost["seconds"], lost["host"], lost["job_id"], lost["batch"]) == ("node_failure", 30.0, "n1", "77", BASE)
    assert found[packed[0]]["cpu_hours"] == pytest.approx(40 * 4 / 3600)
    (job,) = load("w1", store.root).jobs().collect().to_dicts()
    told = {
        name: job[name] for name in ("batch", "job_id", "sweep", "reason", "hosts", "nodes", "slots", "num_tasks", "seconds", "idle_tasks")
    }
    assert told == dict(
        batch=BASE, job_id="77", sweep="w1", reason="NODE_FAIL", hosts="n1", nodes=1, slots=2, num_tasks=4, seconds=100.0, idle_tasks=None
    )


def test_an_attempt_that_another_went_on_from_is_continued_and_not_wasted(store: Store, keys: list[str]) -> None:
    token = f"{BASE}/1"
    submit(store, [[keys[0]], [keys[1]]], ALONE)
    key = keys[1]
    names = [f"{BASE}.1-0-{100 * run}-aaaaa{run}" for run in range(4)]
    # stopped at step 5; lost, without a word, but the next began at step 9; no further; done
    write_run(store, token, 0, [start(key, names[0], 1.0), end(key, names[0], "timeout_progress", 10.0, checkpoint=5, **WHOLE)])
    write_run(store, token, 1, [start(key, names[1], 100.0)], beat=110.0)
    write_run(store, token, 2, [start(key, names[2], 200.0), end(key, names[2], "killed", 10.0, resumed_at=9, checkpoint=9, **WHOLE)])
    write_run(store, token, 3, [start(key, names[3], 300.0), end(key, names[3], "completed", 10.0, resumed_at=9, **WHOLE)])
    commit(store, key, ["w1"], attempt=names[3], seconds=10.0)
    close(store, token, seconds=50.0, job_id="77_1", earlier=["", "node_failure", "preempted"])
    found = {row["attempt"]: (row["kind"], row["cause"]) for row in rows(store, key=key).drop_nulls("attempt").to_dicts()}
    assert found == {
        names[0]: ("continued", "timeout_progress"),
        names[1]: ("continued", "node_failure"),
        names[2]: ("wasted", "killed"),
        names[3]: ("useful", "completed"),
    }
    assert set(load("w1", store.root).attempts().collect()["job_id"]) == {"77_1"}


def test_a_checkpoint_that_nobody_went_on_from_saves_no_attempt(store: Store, keys: list[str]) -> None:
    key = keys[0]
    submit(store, [keys], ALONE)
    names = [f"{BASE}-0-{run}-aaaaa{run}" for run in range(2)]
    events = [start(key, names[0], 1.0), end(key, names[0], "killed", 9.0, checkpoint=5, **WHOLE)]
    write_run(store, BASE, 0, [*events, start(key, names[1], 20.0), end(key, names[1], "completed", 9.0, **WHOLE)])
    commit(store, key, ["w1"], attempt=names[1])
    assert sorted(rows(store)["kind"]) == ["useful", "wasted"]


def test_an_attempt_that_left_a_newer_checkpoint_is_continued_as_long_as_no_other_has_begun(store: Store, keys: list[str]) -> None:
    submit(store, [keys], ALONE)
    events = [(keys[0], {"checkpoint": 5}), (keys[1], {"checkpoint": 5, "resumed_at": 5}), (keys[2], {})]
    told = [
        event
        for key, more in events
        for event in (start(key, f"{BASE}-0-0-{key[:4]}", 1.0), end(key, f"{BASE}-0-0-{key[:4]}", "interrupted", 9.0, **more))
    ]
    write_run(store, BASE, 0, told)
    kinds = {row["key"]: row["kind"] for row in rows(store).to_dicts()}
    assert [kinds[key] for key in keys[:3]] == ["continued", "wasted", "wasted"]


def test_a_result_that_was_taken_back_is_wasted(store: Store, packed: list[str]) -> None:
    compact(store, ledgers.read(store.root))
    fakes.retract(store, packed[0])
    compact(store, ledgers.read(store.root))
    found = rows(store, key=packed[0]).drop_nulls("attempt").to_dicts()
    assert [(row["kind"], row["cause"]) for row in found] == [("wasted", "retracted")]
    assert load("w1", store.root).jobs().collect().height == 1


def test_a_job_that_began_no_task_is_charged_to_its_tasks(store: Store, keys: list[str]) -> None:
    submit(store, [[keys[0], keys[1]], [keys[2], keys[3]]], PACKED)
    close(store, f"{BASE}/0", seconds=36.0, job_id="77_0")
    for _ in range(2):
        found = rows(store)
        assert sorted(found["key"]) == sorted(keys[:2])
        assert set(found["cause"]) == {"never_started"}
        assert total(found) == pytest.approx(cost.of_job(PACKED, 36.0))
        compact(store, ledgers.read(store.root))


def test_a_local_sweep_costs_its_attempts_and_has_no_jobs(store: Store, keys: list[str]) -> None:
    submit(store, [keys], {})
    name = f"{BASE}-0-0-abcdef"
    write_run(store, BASE, 0, [start(keys[0], name, 1.0), end(keys[0], name, "completed", 3600.0, cpus=2, gpus=0, slots=1)])
    commit(store, keys[0], ["w1"], attempt=name)
    close(store, BASE, seconds=9999.0)
    (row,) = rows(store).to_dicts()
    assert (row["cpu_hours"], row["gpu_hours"], row["node_hours"]) == (2.0, 0.0, None)
    assert load("w1", store.root).jobs().collect().is_empty()


def test_a_sweep_that_has_not_begun_costs_nothing(store: Store, keys: list[str]) -> None:
    found = cost_table.table(load("w1", store.root))
    assert (found.total.tasks, found.total.hours["cpu_hours"], found.causes, found.jobs) == (0, 0.0, [], 0)
    assert found.by == {"width": [], "seed": [], "workload": []}


def test_the_table_names_groups_and_causes_the_costliest_first(store: Store, packed: list[str]) -> None:
    found = cost_table.table(load("w1", store.root))
    assert list(found.by) == ["width", "seed", "workload"]
    assert [group.value for group in found.by["width"]] == [32, 64]
    assert [(kind, group.value) for kind, group in found.causes] == [
        ("useful", "completed"), ("wasted", "overhead"), ("wasted", "node_failure"), ("wasted", "user_error"), ("wasted", "superseded"),
    ]  # fmt: skip
    assert found.total.joules == pytest.approx(600.0)
    assert found.unknown == 1, "the attempt that was run by hand"
    assert list(cost_table.table(load("w1", store.root), ["seed"]).by) == ["seed"]


@pytest.mark.parametrize(
    ("attempt", "token"),
    [
        ("w1-0123456789ab-17-0-abcdef", "w1-0123456789ab"),
        ("w1.5-0123456789ab.17-3-201-abcdef", "w1.5-0123456789ab/17"),
        ("a-b-0123456789ab-0-0-012345", "a-b-0123456789ab"),
        ("inline-abc123-0-0-abc123", None),
    ],
)
def test_an_attempts_name_tells_its_batch(attempt: str, token: str | None) -> None:
    assert attempts.token_of(attempt) == token


def test_commits_of_a_batch_that_is_still_open_have_their_cost(store: Store, keys: list[str]) -> None:
    submit(store, [[key] for key in keys], ALONE)
    name = f"{BASE}.2-0-0-abcdef"
    write_run(store, f"{BASE}/2", 0, [start(keys[2], name, 1.0), end(keys[2], name, "completed", 72.0, **WHOLE)])
    commit(store, keys[2], ["w1"], attempt=name)
    # and one that was killed between its commit and its last word
    write_run(store, f"{BASE}/3", 0, [start(keys[3], f"{BASE}.3-0-0-abcdef", 1.0)])
    commit(store, keys[3], ["w1"], attempt=f"{BASE}.3-0-0-abcdef", seconds=36.0)
    compact(store, ledgers.read(store.root))
    found = {row["key"]: row for row in load("w1", store.root).attempts().collect().to_dicts()}
    assert [found[key]["gpu_hours"] for key in keys[2:]] == pytest.approx([0.02, 0.01])
    assert [found[key]["batch"] for key in keys[2:]] == [f"{BASE}/2", f"{BASE}/3"]
    assert found[keys[2]]["job_id"] == "77_2"

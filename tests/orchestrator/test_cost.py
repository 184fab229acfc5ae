"""What was paid for is counted, whether it was of use or not."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import cost
from orchestrator import ledger as ledgers
from orchestrator.batches import Batch
from orchestrator.closing import closing_entry
from orchestrator.launchers.launcher import JobState
from orchestrator.store import Store
from workers import files

REPOSITORY = Path(__file__).parents[2]
SHAPE = {"nodes": 1, "cpus": 4, "gpus": 1, "memory_gib": 8.0, "walltime_minutes": 60.0}
# four tasks at once on two GPUs
PACKED = {
    "nodes": 1, "cpus": 16, "gpus": 2, "memory_gib": 33.0, "minutes": 90, "slots": 4, "cpus_per_slot": 4, "tasks_per_gpu": 2,
    "shape": SHAPE, "packed": True,
}  # fmt: skip
GANG = {
    "nodes": 4,
    "cpus": 8,
    "gpus": 2,
    "minutes": 30,
    "slots": 1,
    "tasks_per_gpu": 1,
    "shape": SHAPE | {"nodes": 4, "cpus": 8, "gpus": 2},
}
TRAIN = "train cpus=4 gpus=1 memory_gib=8 nodes=1 walltime_minutes=60"


def test_a_job_costs_what_it_asked_for_on_each_of_its_nodes_as_long_as_it_lasts() -> None:
    assert cost.of_job(GANG, 1800) == {"cpu_hours": 16.0, "gpu_hours": 4.0, "node_hours": 2.0}


def test_attempts_that_fill_their_job_cost_what_it_costs() -> None:
    share = {"cpus": 4, "gpus": 0.5, "slots": 1}
    attempts = [cost.of_attempt({"seconds": 3600.0, **share}, PACKED) for _ in range(4)]
    assert cost.add(*attempts) == cost.of_job(PACKED, 3600)


@pytest.mark.parametrize("request_", [PACKED, GANG])
def test_an_end_record_without_a_share_is_charged_what_its_task_asked_for(request_: dict[str, Any]) -> None:
    slots = request_["slots"]
    shares = {"cpus": request_["nodes"] * request_["cpus"] / slots, "gpus": request_["nodes"] * request_["gpus"] / slots, "slots": 1}
    assert cost.of_attempt({"seconds": 100.0}, request_) == pytest.approx(cost.of_attempt({"seconds": 100.0, **shares}, request_))


def test_a_local_attempt_costs_no_nodes_and_one_of_which_nothing_is_known_costs_an_unknown_sum() -> None:
    local = cost.of_attempt({"seconds": 7200.0, "cpus": 2, "gpus": 0, "slots": 1}, {})
    assert local == {"cpu_hours": 4.0, "gpu_hours": 0.0, "node_hours": None}
    assert cost.of_attempt({"seconds": 7200.0}, {}, {"cpus": 3}) == {"cpu_hours": 6.0, "gpu_hours": 0.0, "node_hours": None}
    assert set(cost.of_attempt({"seconds": 7200.0}, {}).values()) == {None}
    assert set(cost.of_attempt({"cpus": 2}, PACKED).values()) == {None}


# -- what a batch says of itself --------------------------------------------------------------------------------------


def run_of(folder: Path, run: int, begun: float, events: list[dict[str, Any]], **more: Any) -> None:
    name, below = ("receipt.json", folder) if run == 0 else (f"receipt-{run}.json", folder / f"run-{run}")
    below.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(files.encode({"token": folder.name, "time": begun, "host": "n1", **more}))
    (below / "attempts.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def test_a_job_that_ran_twice_is_paid_for_twice(tmp_path: Path) -> None:
    folder = tmp_path / "batches" / "w1-0123456789ab"
    run_of(folder, 0, 1000.0, [{"event": "start", "key": "k", "attempt": "a", "time": 1010.0}])
    run_of(
        folder,
        1,
        5000.0,
        [{"event": "start", "key": "k", "attempt": "b", "time": 5001.0}, {"event": "over", "reason": "finished", "time": 5100.0}],
    )
    # a run that was killed has beaten after its last word
    (folder / "heartbeat.json").write_bytes(files.encode({"count": 2, "time": 1025.0}))
    batch = Batch(tmp_path, folder.name).refresh()
    assert (batch.earlier_seconds, batch.seconds) == (25.0, 100.0)
    assert cost.seconds_of(batch, None) == 125.0
    # the scheduler has seen the newest run a little longer than it says itself
    job = JobState(state="ended", job_id="7", seconds=103.0, nodes=("n1",), energy_joules=5.0, reason="COMPLETED")
    assert cost.job_record({"request": GANG}, batch, job) == {
        "seconds": 128.0, "job_id": "7", "reason": "COMPLETED", "energy_joules": 5.0, "nodes": ["n1"],
        "hours": {"cpu_hours": pytest.approx(128 * 32 / 3600, rel=1e-5), "gpu_hours": pytest.approx(128 * 8 / 3600, rel=1e-5),
                  "node_hours": pytest.approx(128 * 4 / 3600, rel=1e-5)},
    }  # fmt: skip


def test_a_job_is_paid_for_from_its_first_line_on_and_told_by_its_receipt_where_no_scheduler_was_asked(tmp_path: Path) -> None:
    folder = tmp_path / "batches" / "w1-0123456789ab"
    run_of(folder, 0, 1000.0, [{"event": "over", "reason": "finished", "time": 1100.0}], began=970.0, slurm={"job_id": "7_1"})
    batch = Batch(tmp_path, folder.name).refresh()
    found = cost.job_record({"request": GANG}, batch, None)
    assert {name: found[name] for name in ("seconds", "job_id", "nodes")} == {"seconds": 130.0, "job_id": "7_1", "nodes": ["n1"]}


def test_the_receipt_of_a_job_of_slurm_tells_when_its_script_began(tmp_path: Path) -> None:
    """The shell of the script sleeps and becomes the process that links the receipt."""
    script = (
        "from pathlib import Path; from workers.journal import Journal\n"
        f"print(Journal(Path({str(tmp_path)!r})).link_receipt('t', {{'job_id': '1', 'restart': 0}}))"
    )
    subprocess.run(["sh", "-c", 'sleep 1; exec "$0" -c "$1"', sys.executable, script], check=True, cwd=REPOSITORY)
    receipt = files.read(tmp_path / "receipt.json")
    assert 1.0 <= receipt["time"] - receipt["began"] < 30.0


def test_a_local_batch_costs_its_ended_attempts_and_not_the_time_that_it_waited_for_slots(tmp_path: Path) -> None:
    folder = tmp_path / "batches" / "w1-0123456789ab"
    end = {
        "event": "end",
        "key": "k",
        "attempt": "a",
        "time": 1900.0,
        "seconds": 90.0,
        "cpus": 2,
        "gpus": 0,
        "slots": 1,
        "class": "completed",
    }
    run_of(folder, 0, 1000.0, [{"event": "start", "key": "k", "attempt": "a", "time": 1810.0}, end])
    batch = Batch(tmp_path, folder.name).refresh()
    assert cost.of_batch({"request": {}}, batch, None) == {"cpu_hours": 0.05, "gpu_hours": 0.0, "node_hours": 0.0}


def test_a_member_of_an_ensemble_took_its_share_of_the_time_of_all(tmp_path: Path) -> None:
    folder = tmp_path / "batches" / "w1-0123456789ab"
    end = {"event": "end", "attempt": "a", "time": 1900.0, "seconds": 80.0, "class": "completed"}
    events = [
        {**end, "key": "k1", "members": 8},
        {**end, "key": "k2", "seconds": 6.0},
        {"event": "over", "reason": "finished", "time": 1900.0},
    ]
    run_of(folder, 0, 1000.0, events)
    entry = {"sweep": "w1", "keys": ["k1", "k2"], "request": PACKED}
    watch = SimpleNamespace(
        ledger=SimpleNamespace(batches={folder.name: entry}, name_of=str),
        jobs={},
        batch=lambda token: Batch(tmp_path, token).refresh(),
        sweep=lambda name: SimpleNamespace(keys=["k1", "k2"], workload=lambda index: "train"),
    )
    assert closing_entry(watch, [folder.name])["slowest"] == {TRAIN: 10.0}  # type: ignore[arg-type]


def test_the_ledger_adds_up_what_closed_jobs_have_cost(store: Store) -> None:
    ledger = ledgers.read(store.root)
    for number, hours in enumerate([{"cpu_hours": 1.5, "gpu_hours": 0.5}, {"cpu_hours": 2.0}, {}]):
        entry = {"token": f"w1-{number}", "sweep": "w1", "outcomes": {}, "job": {"hours": hours}}
        assert ledgers.append(store.root, ledger, {"kind": "closed", "batches": [entry]})
    assert ledger.spent == {"w1": {"cpu_hours": 3.5, "gpu_hours": 0.5}}
    assert ledgers.Ledger.from_body(files.plain(ledger.to_body())).spent == ledger.spent

"""The ledger's numbered entries and what they add up to."""

from pathlib import Path

import pytest

from orchestrator import ledger as ledgers
from orchestrator.ledger import Ledger
from workers import files
from workers.errors import Garbled

REVISION = {"kind": "revision", "sweep": "w1", "revision": 1, "snapshot": "s", "code": "c"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "ledger").mkdir()
    return tmp_path


def submission(token: str, keys: list[str]) -> dict[str, object]:
    return {"kind": "submission", "token": token, "sweep": "w1", "keys": keys}


def closed(token: str, outcomes: dict[str, object]) -> dict[str, object]:
    return {"kind": "closed", "token": token, "outcomes": outcomes}


def test_of_two_that_decide_on_the_same_reading_one_wins_and_the_other_reads_again(root: Path) -> None:
    one, other = ledgers.read(root), ledgers.read(root)
    assert ledgers.append(root, one, REVISION)
    assert not ledgers.append(root, other, REVISION)
    assert ledgers.read(root, other).number == 1
    assert ledgers.append(root, other, submission("t", ["k"]))


def test_reading_in_steps_gives_the_fold_of_reading_at_once(root: Path) -> None:
    writer, stepwise = ledgers.read(root), ledgers.read(root)
    for entry in [REVISION, submission("t", ["k"]), closed("t", {"k": {"class": "killed"}}), {"kind": "settled", "sweep": "w1"}]:
        ledgers.append(root, writer, entry)
        ledgers.read(root, stepwise)
    assert stepwise == writer == ledgers.read(root)
    assert Ledger.from_body(writer.to_body()) == writer
    assert Ledger.from_body(writer.to_body() | {"of_a_newer_version": {}}) == writer


def test_a_batch_is_open_until_it_is_closed_and_its_failures_count_until_resumed(root: Path) -> None:
    ledger = ledgers.read(root)
    ledgers.append(root, ledger, REVISION)
    ledgers.append(root, ledger, submission("t", ["k"]))
    assert list(ledger.batches) == ["t"]
    ledgers.append(root, ledger, closed("t", {"k": {"class": "killed"}}))
    assert (ledger.batches, ledger.outcomes) == ({}, {"k": [{"class": "killed", "number": 3}]})
    ledgers.append(root, ledger, {"kind": "resume", "sweep": "w1", "keys": ["k"], "all": True, "snapshot": "s", "code": "c2"})
    assert (ledger.outcomes, ledger.sweeps["w1"]["code"]) == ({}, "c2")


def test_a_cancellation_of_some_is_lifted_for_those_that_are_resumed(root: Path) -> None:
    ledger = ledgers.read(root)
    ledgers.append(root, ledger, REVISION)
    ledgers.append(root, ledger, {"kind": "cancellation", "sweep": "w1", "keys": ["a", "b"]})
    assert ledger.is_cancelled("w1", "a") and not ledger.is_cancelled("w1", "c")
    ledgers.append(root, ledger, {"kind": "resume", "sweep": "w1", "keys": ["a"], "all": False, "snapshot": "s", "code": "c"})
    assert not ledger.is_cancelled("w1", "a") and ledger.is_cancelled("w1", "b")


def test_a_retraction_begins_a_new_generation(root: Path) -> None:
    ledger = ledgers.read(root)
    ledgers.append(root, ledger, {"kind": "retraction", "commits": ["k"], "reason": "wrong"})
    assert ledger.name_of("k") == "k.1"
    ledgers.append(root, ledger, {"kind": "retraction", "commits": ["k.1"], "reason": "wrong again"})
    assert (ledger.name_of("k"), ledger.retracted) == ("k.2", {"k", "k.1"})


def test_reading_begins_at_the_newest_manifest_that_can_be_trusted(root: Path) -> None:
    ledger = ledgers.read(root)
    ledgers.append(root, ledger, REVISION)
    (root / "dataset").mkdir()
    (root / "dataset" / "MANIFEST-1.json").write_bytes(files.encode({"folded": ledger.to_body()}))
    (root / "dataset" / "MANIFEST-2.json").write_bytes(b"{half")
    ledgers.append(root, ledger, submission("t", ["k"]))
    (root / "ledger" / "00000001.json").unlink()
    assert ledgers.read(root) == ledger


def test_an_entry_that_was_changed_is_named_and_not_trusted(root: Path) -> None:
    ledgers.append(root, ledgers.read(root), REVISION)
    path = root / "ledger" / "00000001.json"
    path.write_bytes(path.read_bytes().replace(b'"w1"', b'"w2"'))
    with pytest.raises(Garbled, match="00000001.json is truncated or was changed"):
        ledgers.read(root)


def test_an_entry_of_a_later_version_is_passed_over(root: Path) -> None:
    ledger = ledgers.read(root)
    assert ledgers.append(root, ledger, {"kind": "of-the-future"})
    assert ledgers.read(root).number == 1

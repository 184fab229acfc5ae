"""What no cluster could run is refused before anything is written or sent, with what the cluster offers instead."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import cli
from orchestrator.store import Store
from tests.slurm.cluster import Cluster
from tests.slurm.drivers import here, settings
from tests.slurm.scene import Scene

NOOP = ("workload=noop", "name=bad", "index=0,1")
PARTITIONS = ("debug", "low", "high", "short", "small", "ml")

BAD = {
    "unknown partition": (["launcher.partition=debgu"], ["no partition 'debgu'", "did you mean 'debug'?", *PARTITIONS]),
    "unknown tick partition": (["launcher.tick_partition=nowhere"], ["no partition 'nowhere'", *PARTITIONS]),
    "unknown account": (["launcher.account=chemistry"], ["no account 'chemistry'", "physics", "ml", "tiny"]),
    "unknown qos": (["launcher.qos=fast"], ["no QOS 'fast'", "normal", "short"]),
    "unknown GPU type": (["launcher.gpu_type=h100", "resources.gpus=1"], ["no GPU type 'h100'", "a100", "v100"]),
    "unknown larger GPU type": (
        ["launcher.larger_gpu_types=[v100,h100]", "resources.gpus=1"],
        ["launcher.larger_gpu_types: no GPU type 'h100'", "a100", "v100"],
    ),
    "unknown constraint": (["launcher.constraint=icelake"], ["no feature 'icelake'", "a100", "rack1", "rack2", "v100"]),
    "features of no node": (["launcher.constraint='a100&v100'"], ["'a100&v100'", "has 0 such", "1 node of 4 CPUs"]),
    "GPU type against constraint": (
        ["launcher.gpu_type=a100", "resources.gpus=1", "launcher.constraint=v100"],
        ["GPU type 'a100'", "'v100'", "has 0 such"],
    ),
    "too much memory": (["resources.memory_gib=100"], ["100", "GiB", "3.906 GiB", "resources.memory_gib"]),
    "too much memory of a partition": (["launcher.partition=small", "resources.memory_gib=0.6"], ["'small'", "0.4883 GiB", "debug"]),
    "too many CPUs": (["resources.cpus=5"], ["5 CPUs", "4 CPUs", "resources.cpus"]),
    "too many GPUs": (["resources.gpus=3"], ["3 GPUs", "2 GPUs", "2 a100", "2 v100"]),
    "too many nodes": (["resources.nodes=5"], ["5 nodes", "(4)", "resources.nodes"]),
    "too much time": (["resources.walltime_minutes=2000"], ["33.", "24 h", "resources.walltime_minutes"]),
    "too much time of a partition": (["launcher.partition=short", "resources.walltime_minutes=5"], ["'short'", "(1 min)", "debug"]),
    "too much time of a QOS": (["launcher.qos=short", "resources.walltime_minutes=5"], ["QOS 'short'", "(2 min)"]),
    "partition of another account": (["launcher.partition=ml"], ["'ml'", "'physics'", "launcher.account=ml"]),
    "unknown site": (["site=nowhere"], ["nowhere"]),
    "unknown node": (["launcher.nodelist=n9"], ["Invalid node name"]),
    "unknown reservation": (["launcher.reservation=summer"], ["reservation is invalid"]),
    "unknown key of sbatch": (["launcher.sbatch={mail-kind: FAIL}"], ["unrecognized option '--mail-kind=FAIL'"]),
    "unknown generic resource": (["launcher.sbatch={gres: 'fpga:1'}"], ["generic resource"]),
    "interpreter on this host alone": (["launcher.python=/tmp/python"], ["/tmp/python", "each node has its own"]),
    "key of another name": (["launcher.partion=debug"], ["partion", "partition"]),
    "array by hand": (["launcher.sbatch={array: 0-3}"], ["sbatch.array", "launcher.chunk"]),
    "newline": (["launcher.account='a\nb'"], ["account", "control characters"]),
}


@pytest.fixture(scope="module")
def scene(session_cluster: Cluster) -> Iterator[Scene]:
    """One store for all that is refused."""
    with Scene(cluster=session_cluster, folder=Path(tempfile.mkdtemp(dir=session_cluster.shared))) as scene:
        with here(scene):
            from orchestrator import compose

            compose.compose(settings(NOOP))
        yield scene


@pytest.fixture
def sent(scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A file that is there once sbatch was to queue something; the environment is that of the scene."""
    bin_, calls = tmp_path / "bin", tmp_path / "calls"
    bin_.mkdir()
    (bin_ / "sbatch").write_text(
        f'#!/bin/sh\ncase " $* " in *" --test-only "*) ;; *) echo "$@" >> {calls};; esac\nexec {scene.cluster.bin}/sbatch "$@"\n'
    )
    (bin_ / "sbatch").chmod(0o755)
    with here(scene):
        monkeypatch.setenv("PATH", f"{bin_}:{scene.environment['PATH']}")
        yield calls


def picture(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file and folder."""
    return {str(path): ((status := path.lstat()).st_size, status.st_mtime_ns) for path in [root, *root.rglob("*")]}


def refused(root: Path, words: list[str], capsys: pytest.CaptureFixture[str], verb: str) -> str:
    """What the command says, which must have ended with 2 and left the store as it was."""
    before = picture(root)
    assert cli.main([verb, *settings([*NOOP, *words]), "--root", str(root)]) == 2
    assert picture(root) == before
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    return printed.err


@pytest.mark.parametrize(("words", "told"), BAD.values(), ids=BAD)
def test_what_the_cluster_does_not_have_is_refused(
    scene: Scene, sent: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: list[str]
) -> None:
    messages = [refused(scene.root, words, capsys, verb) for verb in ("plan", "submit")]
    for message in messages:
        assert not [text for text in told if text not in message], message
    assert messages[0] == messages[1].replace("eigensweep submit", "eigensweep plan")
    assert not sent.exists()


def test_every_problem_is_told_at_once(scene: Scene, sent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(scene.root, ["launcher.partition=nowhere", "launcher.account=chemistry", "launcher.qos=fast"], capsys, "submit")
    assert all(text in message for text in ("no partition 'nowhere'", "no account 'chemistry'", "no QOS 'fast'"))
    assert not sent.exists()


def test_a_store_that_the_nodes_do_not_see_is_refused(sent: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = Store.init(tmp_path / "store").root
    for verb in ("plan", "submit"):
        message = refused(root, [], capsys, verb)
        assert str(root) in message
        assert "each node has its own" in message and "eigensweep init" in message and "launcher.shared=" in message
    assert not sent.exists()


def test_a_store_in_no_shared_folder_of_the_site_is_refused(scene: Scene, sent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("plan", "submit"):
        assert "none of the folders that the nodes see (/scratch, /home)" in refused(
            scene.root, ["launcher.shared=[/scratch,/home]"], capsys, verb
        )
    assert not sent.exists()


PROFILE = "launcher.partitions={batch: {nodes: 4, cpus_per_node: 8, memory_gib: 16, max_minutes: 120, gpus: {a100: 2}}}"


@pytest.fixture
def without_slurm(sent: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a laptop: no command of SLURM is there."""
    bin_ = tmp_path / "laptop"
    bin_.mkdir()
    for name in ("git", "sh", "env"):
        (bin_ / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(bin_))


@pytest.mark.usefixtures("without_slurm")
def test_without_sbatch_nothing_is_submitted(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], [PROFILE]):
        message = refused(scene.root, words, capsys, "submit")
        assert "no sbatch on PATH" in message and "eigensweep plan" in message


@pytest.mark.usefixtures("without_slurm")
def test_without_sbatch_plan_works_from_the_profile_and_says_so(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    before = picture(scene.root)
    for words, told in (([], "not checked"), ([PROFILE], "not checked against a cluster, only against the site's `partitions:`")):
        assert cli.main(["plan", *settings([*NOOP, *words]), "--root", str(scene.root)]) == 0
        printed = capsys.readouterr().out
        assert told in printed
        assert "#SBATCH --job-name=bad-" in printed and f"{sys.executable} -P -m workers {scene.root}" in printed
    assert picture(scene.root) == before
    for words, told in ((["resources.gpus=3"], "2 a100"), (["resources.walltime_minutes=121"], "120 min")):
        assert told in refused(scene.root, [PROFILE, *words], capsys, "plan").replace("2 h", "120 min")

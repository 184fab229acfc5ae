"""Nothing of a config is run by a shell, and a store is read by its group and written by its owner alone, on the nodes too."""

import contextlib
import json
import os
import stat
import sysconfig
import tempfile
from pathlib import Path

import pytest

from orchestrator import cli, verbs
from orchestrator.store import Store
from orchestrator.watch import Watch
from tests.slurm.cluster import REPOSITORY, Cluster, wait_until
from tests.slurm.drivers import here, interpreter_for_all, settings, settle, submit
from tests.slurm.scene import Scene
from workers import taskdir

# what a shell, an sbatch line or SLURM's patterns of file names would act upon
NASTY = [
    "a'; touch x; '",
    '"; touch x; "',
    "$(touch x)",
    "`touch x`",
    "${IFS}|touch${IFS}x",
    "%j%A_%a%%",
    "& touch x &",
    "> x",
    "--wrap=touch x",
    "line one\ntouch x\n#SBATCH --wrap=touch",
    "\\n\\x78 \\",
    "é λ 雪 \u202e",
    " two  blanks ",
    "!!~*?[x]{a,b}",
]
FOLDER = 'a\'; touch x; $(touch x) `touch x` "%j" %A &'


def touched(*folders: Path) -> list[Path]:
    """Files that only a shell that ran a setting can have made."""
    return [path for folder in folders for path in (folder.rglob("x") if folder.is_dir() else ()) if path.is_file()]


def quoted(text: str) -> str:
    """A text as a value of the command line's grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'" if not text.endswith("\\") else json.dumps(text)


def test_settings_that_look_like_commands_come_back_as_they_were(cluster: Cluster, shared: Path) -> None:
    """In settings of tasks, in the store's path, in what is passed on to sbatch and in the container's words; packed and as an array."""
    with Scene(cluster=cluster, folder=shared / FOLDER) as scene:
        config = scene.folder / "conf/sweep"
        config.mkdir(parents=True)
        texts = [text.replace("${", "\\${") for text in NASTY]  # else an interpolation of the config
        given = {"workload": "cluster_package.seen", "sweep": {"grid": {"text": texts}}}
        (config / "nasty.yaml").write_text(json.dumps(given))
        own = f"launcher.sbatch={{comment: {json.dumps(FOLDER)}}}"
        setup = "launcher.setup=['export GREETING=\"it is $((6*7))\"']"
        words = ["sweep=nasty", "launcher.tick_job=false", own, setup]
        dirs = [scene.folder / "conf"]
        submit(scene, *words, "name=packed", "launcher.tasks_per_job=100", config_dirs=dirs)
        submit(scene, *words, "name=array", "launcher.pack=never", "index=1", config_dirs=dirs)
        settle([(scene, "packed"), (scene, "array")])
        for name in ("packed", "array"):
            assert scene.counts(name) == {"completed": len(NASTY)}
            sweep = Watch.of(Store.open(scene.root)).sweep(name)
            texts = []
            for position, key in enumerate(sweep.keys):
                seen = json.loads(taskdir.payload_path(scene.root, taskdir.read_commit(scene.root, key), "seen.json").read_text())
                assert seen["text"] == sweep.axis_values(position)["text"]
                assert seen["environment"]["GREETING"] == "it is 42"
                texts.append(seen["text"])
            assert sorted(texts) == sorted(NASTY)
            assert sorted(verbs.load(name, scene.root).tasks().collect()["text"]) == sorted(NASTY)
            assert f"Comment={FOLDER}" in cluster.exec("scontrol", "show", "job", scene.job_id(name))
        # the logs stand where they belong, and nowhere does a file tell of a shell that read a setting
        for name in ("packed", "array"):
            folder = taskdir.batch_dir(scene.root, scene.submissions(name)[0]["token"])
            assert (folder / ("log" if name == "packed" else "log-0")).is_file()
        assert touched(shared) == []
        for node in ("n1", "n2", "n3", "n4"):
            assert cluster.on(node, "sh", "-c", "ls -d /x /root/x /tmp/x 2>/dev/null", check=False) == ""
        assert not (Path.cwd() / "x").exists()


def refused(scene: Scene, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `submit` says, which must not have sent anything."""
    with here(scene):
        assert cli.main(["submit", *settings(["workload=noop", "index=0,1", *words]), "--root", str(scene.root)]) == 2
    assert not scene.entries("submission")
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    return told


def test_names_of_sweeps_that_are_no_names_are_refused(session_cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(tempfile.mkdtemp(dir=session_cluster.shared))
    with Scene(cluster=session_cluster, folder=folder) as scene:
        for name in ("a'; touch x", "$(touch x)", "a b", "a/b", "../a", "a\nb", "-x", "%j", "", "a\\b"):
            assert "name" in refused(scene, capsys, f"name={quoted(name)}")
    assert touched(folder) == []


@pytest.mark.parametrize("key", ["partition", "account", "qos", "constraint", "nodelist", "exclude", "reservation", "tick_partition"])
def test_a_setting_of_sbatch_is_one_word_of_one_option(session_cluster: Cluster, capsys: pytest.CaptureFixture[str], key: str) -> None:
    """Refused, by us or by SLURM, as the name of something that is not there; never read as anything else."""
    folder = Path(tempfile.mkdtemp(dir=session_cluster.shared))
    with Scene(cluster=session_cluster, folder=folder) as scene:
        for value in ("debug; touch x", "$(touch x)", "debug\n#SBATCH --wrap=touch", "debug --wrap=touch", "debug #", "\\"):
            refused(scene, capsys, "name=w", f"launcher.{key}={quoted(value)}")
    assert touched(folder) == []


# -- who may read and write ---------------------------------------------------------------------------------------------


def test_whatever_a_job_writes_is_for_its_user_and_the_groups_eyes(cluster: Cluster, shared: Path) -> None:
    """Folders 2750 and files 0640, also logs that SLURM opens, and what libraries create; never more, whatever the umask."""
    with contextlib.ExitStack() as stack:
        scenes = {umask: stack.enter_context(Scene(cluster=cluster, folder=shared / oct(umask))) for umask in (0o022, 0o077, 0o000)}
        for umask, scene in scenes.items():
            before = os.umask(umask)
            try:
                words = ["workload=cluster_package.seen", "index=0,1"]
                scene.submit(*words, "name=packed")
                submit(scene, *words, "name=array", "launcher.pack=never", "text=array")
            finally:
                os.umask(before)
        for scene in scenes.values():
            wait_until(lambda scene=scene: {"packed", "array"} <= scene.ledger.settled, 60, "both are done")
        wait_until(lambda: not cluster.exec("squeue", "-h", "-o", "%j"), 30, "no job is left")
        for umask, scene in scenes.items():
            for path in scene.root.rglob("*"):
                mode, most = stat.S_IMODE(path.lstat().st_mode), 0o2750 if path.is_dir() else 0o640
                assert mode & ~most == 0 and (umask == 0o077 or mode == most), f"{path} has {oct(mode)}"


def test_a_store_of_another_user_is_read_and_never_written(cluster: Cluster, shared: Path) -> None:
    """Of root, with a job that runs and one that waits, by a user of its group; and not at all by one of no group of it."""
    shared.chmod(0o2750)
    os.chown(shared, -1, 65534)
    theirs = Path(cluster.shared / f"theirs-{shared.name}")
    theirs.mkdir()
    theirs.chmod(0o777)
    with Scene(cluster=cluster, folder=shared) as scene:
        (scene.folder / "gate").mkdir()
        gate = f"gate={scene.folder}/gate/open"
        submit(scene, "workload=noop", "name=done", "index=range(0,4)", "launcher.tick_job=false")
        submit(scene, "workload=cluster_package.seen", "name=runs", "index=0,1", "launcher.tick_job=false", gate)
        wait_until(lambda: len(list((scene.folder / "gate").iterdir())) == 2, 60, "two tasks run")
        settle([(scene, "done")])
        python, site = interpreter_for_all(), sysconfig.get_path("purelib")
        environment = {
            **cluster.environment,
            "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests"), site)),
            **dict.fromkeys(("HOME", "XDG_CACHE_HOME"), str(theirs)),
            "EIGENSWEEP_ROOT": str(scene.root),
        }
        environment.pop("XDG_RUNTIME_DIR", None)

        def command(*words: str, user: str = "nobody") -> str:
            return cluster.exec(python, "-m", "orchestrator", *words, user=user, environment=environment, cwd=theirs, check=False)

        before = picture(scene.root)
        for words in (["status", "done"], ["status", "runs"], ["logs", "done", scene.key("done")], ["scrub"], ["status"]):
            told = command(*words)
            assert "error: " not in told and "next: " in told or "completed" in told, told
        assert "completed 4" in command("status", "done")
        assert "running 2" in command("status", "runs")
        load = "import eigensweep as es; print(len(es.load('done').tasks().collect()))"
        assert cluster.exec(python, "-c", load, user="nobody", environment=environment, cwd=theirs).strip() == "4"
        writing = [
            ["submit", *settings(["workload=noop", "name=new", "index=7"])],
            ["resume", "runs"],
            ["cancel", "runs"],
            ["tick"],
            ["gc"],
        ]
        for words in [*writing, ["retract", "done", "where=true", "--yes"]]:
            told = command(*words)
            assert "error: " in told and "root" in told, told
        assert picture(scene.root) == before
        assert scene.num_running("runs") == 2
        # also where they get at the files themselves, they cannot
        assert "Permission denied" in cluster.exec("touch", f"{scene.root}/ledger/x", user="nobody", check=False)
        (scene.folder / "gate/open").touch()
        settle([(scene, "runs")])


def picture(root: Path) -> dict[str, tuple[int, int, int]]:
    """Size, mode and time of change of every file and folder but what the running job itself renews."""
    found = {}
    for path in [root, *root.rglob("*")]:
        if path.name not in ("heartbeat.json",) and not path.name.startswith(".heartbeat"):
            status = path.lstat()
            found[str(path)] = (status.st_size if path.is_file() else 0, status.st_mode, status.st_mtime_ns if path.is_file() else 0)
    return found

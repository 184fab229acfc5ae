"""What the machine must have for a cluster, and how it gets it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from place import ClusterError

PACKAGES = "slurmctld slurmd slurm-client slurmdbd slurm-wlm-basic-plugins munge mariadb-server iproute2 util-linux".split()
COMMANDS = "slurmctld slurmd slurmdbd munged mariadbd mariadb-install-db sbatch ip nsenter unshare setpriv".split()
NAMESPACES = "--mount --uts --ipc --pid --cgroup --net --fork".split()
POLICY = Path("/usr/sbin/policy-rc.d")


def missing_commands() -> list[str]:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [command for command in COMMANDS if shutil.which(command, path=path) is None]


def obstacle() -> str:
    """Why this machine cannot run a cluster, with the command that mends it; "" where it can."""
    if not Path("/proc/self/ns/net").exists():
        return "a cluster is made of Linux namespaces, and this is no Linux; use a Linux machine or a virtual one"
    if os.geteuid() != 0:
        return "namespaces and their networks need root; run it with sudo"
    if missing := missing_commands():
        return f"not installed: {', '.join(missing)}; slurm/dev/cluster install"
    refused = subprocess.run(["unshare", *NAMESPACES, "true"], stderr=subprocess.PIPE, text=True)
    if refused.returncode:
        return f"{refused.stderr.strip()}; in a container, start it with --privileged"
    return ""


def install() -> None:
    """The Debian packages, without starting a service of theirs."""
    if not missing_commands():
        return
    if os.geteuid() != 0:
        raise ClusterError("only root installs packages; sudo slurm/dev/cluster install")
    if shutil.which("apt-get") is None:
        raise ClusterError(f"no apt-get here; install by hand: {', '.join(missing_commands())}")
    with _no_services():
        _apt("update")
        _apt("install", "-y", "--no-install-recommends", *PACKAGES)


def _apt(*words: str) -> None:
    done = subprocess.run(
        ["apt-get", "-q", *words],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise ClusterError(f"apt-get {words[0]} failed:\n{done.stdout[-2000:]}")


@contextmanager
def _no_services() -> Iterator[None]:
    """Debian's way to say that packages must not start their services."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()

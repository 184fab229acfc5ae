"""Where a named cluster keeps its files, and what was asked for when it was made."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

# every cluster has a bridge of its own in a network namespace of its own, so all may use the same addresses
NETWORK = "10.77.0"
# in one folder, so that one mount hides the commands of all clusters from a host: a job inherits its submitter's PATH
COMMANDS = Path("/var/tmp/eigensweep-commands")


class ClusterError(Exception):
    """What is wrong, and the command that mends it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `up` was asked for."""

    num_nodes: int
    cpus: int = 4  # nodes may claim more than the machine has
    memory_mib: int = 4000
    gpus: int = 2
    cgroups: str = "auto"  # v1 or off once the cluster is up
    slurm_conf: dict[str, str] = field(default_factory=dict)  # lines that replace ours
    shared_paths: list[str] = field(default_factory=list)  # below /tmp, and yet seen by the nodes
    owner: int = 0  # process id whose death makes the cluster a leftover; 0: nobody's

    @property
    def nodes(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.num_nodes + 1)]


@dataclass(frozen=True)
class Place:
    """The files of the cluster with this name."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", self.name):
            raise ClusterError(f"a cluster's name is up to 32 of a-z, 0-9 and -, from a letter on; got {self.name!r}")

    @property
    def state(self) -> Path:
        return Path(f"/var/tmp/eigensweep-cluster-{self.name}")

    @property
    def database(self) -> Path:
        """On tmpfs where there is one: the cluster is up in 3 s instead of 13."""
        shm = Path("/dev/shm")
        return shm / f"eigensweep-cluster-{self.name}" if shm.is_dir() else self.state / "database"

    @property
    def run(self) -> Path:
        """Sockets of munge and the database; each host mounts its own over /run/munge."""
        return self.state / "run"

    @property
    def slurm(self) -> Path:
        """What every host mounts over /etc/slurm."""
        return self.state / "etc/slurm"

    @property
    def hosts_file(self) -> Path:
        return self.state / "etc/hosts"

    @property
    def log(self) -> Path:
        return self.state / "log"

    @property
    def commands(self) -> Path:
        """sbatch, squeue and so on, as they work from outside the cluster's namespaces."""
        return COMMANDS / self.name

    @property
    def bin(self) -> Path:
        """Another name of it, beside the cluster's other files."""
        return self.state / "bin"

    @property
    def login(self) -> Path:
        """A script that runs a command on the login host."""
        return self.state / "login"

    def settings(self) -> Settings | None:
        """None where no such cluster was made."""
        try:
            return Settings(**json.loads((self.state / "settings.json").read_text()))
        except FileNotFoundError:
            return None

    def write_settings(self, settings: Settings) -> None:
        (self.state / "settings.json").write_text(json.dumps(asdict(settings), indent=1))


def address(host: str) -> str:
    """Of the controller `ctl`, or of a node `n3`."""
    return f"{NETWORK}.1" if host == "ctl" else f"{NETWORK}.{10 + int(host[1:])}"

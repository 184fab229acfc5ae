"""The configuration files of SLURM, its database and its accounts, for one cluster."""

import os
from pathlib import Path

from place import COMMANDS, Place, Settings, address

PARTITIONS = """
PartitionName=debug  Default=YES MaxTime=1-00:00:00 PriorityTier=10 PreemptMode=OFF
PartitionName=low    MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE
PartitionName=cancel MaxTime=INFINITE PriorityTier=1 PreemptMode=CANCEL
PartitionName=grace  MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=high   MaxTime=INFINITE PriorityTier=100 PreemptMode=OFF
PartitionName=short  MaxTime=1 DefaultTime=1 PriorityTier=10 PreemptMode=OFF
PartitionName=small  MaxTime=1-00:00:00 PriorityTier=10 PreemptMode=OFF MaxMemPerNode=500
PartitionName=ml     MaxTime=1-00:00:00 PriorityTier=10 PreemptMode=OFF AllowAccounts=ml
PartitionName=closed MaxTime=1-00:00:00 PriorityTier=10 PreemptMode=OFF State=DOWN
"""

# an unknown account or QOS is refused because associations are enforced; `nobody` stands for a user without privileges
ACCOUNTS = """
add qos short MaxWall=00:02:00 MaxSubmitJobsPerUser=10 Flags=DenyOnLimit
add account physics,ml Description=science Organization=science
add account tiny Description=science Organization=science MaxSubmitJobs=5
add user root,nobody Account=physics,ml,tiny DefaultAccount=physics
modify user where name=root,nobody set QOS=normal,short
"""


def slurm_conf(place: Place, settings: Settings) -> str:
    """The text of slurm.conf; a setting that the user gave replaces ours."""
    cgroups = settings.cgroups == "v1"
    lines = {
        "ClusterName": place.name,
        "SlurmctldHost": f"ctl({address('ctl')})",
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        # also the time for which a requeued job must wait: 120 s by default
        "AuthInfo": "cred_expire=6",
        "StateSaveLocation": f"{place.state}/controller",
        "SlurmdSpoolDir": f"{place.state}/node/%n/spool",
        "SlurmctldPidFile": f"{place.run}/slurmctld.pid",
        "SlurmdPidFile": f"{place.run}/slurmd-%n.pid",
        "SlurmctldLogFile": f"{place.log}/slurmctld.log",
        "SlurmdLogFile": f"{place.log}/slurmd-%n.log",
        "DebugFlags": "NO_CONF_HASH",
        "MailProg": "/bin/true",
        "MpiDefault": "none",
        "SlurmdParameters": "config_overrides",
        "ReturnToService": "2",
        "SlurmdTimeout": "10",
        "SlurmctldTimeout": "30",
        # a lost node is found out after SlurmdTimeout and one to two of these
        "MessageTimeout": "5",
        "TCPTimeout": "2",
        "KillWait": "5",
        "InactiveLimit": "0",
        "SchedulerType": "sched/backfill",
        # with bf_interval=1 backfill starts the jobs, and slurmctld, when it is killed, forgets that they run
        "SchedulerParameters": "batch_sched_delay=0,bf_interval=30,bf_max_job_test=1000,default_queue_depth=1000,sched_interval=2",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "DefMemPerCPU": "200",
        "PriorityType": "priority/basic",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "SlurmctldParameters": "preempt_send_user_signal",
        "JobRequeue": "1",
        "MaxArraySize": "1001",
        "MaxJobCount": "50000",
        "MinJobAge": "300",
        "ProctrackType": "proctrack/cgroup" if cgroups else "proctrack/linuxproc",
        "TaskPlugin": "task/cgroup" if cgroups else "task/none",
        "JobAcctGatherType": "jobacct_gather/cgroup" if cgroups else "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=2",
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": address("ctl"),
        "AccountingStorageTRES": "gres/gpu",
        "AccountingStorageEnforce": "associations,limits,qos",
        "AccountingStoreFlags": "job_comment,job_script",
        "GresTypes": "gpu",
    } | settings.slurm_conf
    return "\n".join([f"{key}={value}" for key, value in lines.items()] + node_lines(settings) + partition_lines(settings)) + "\n"


def gpu_type(settings: Settings, node: str) -> str:
    """The first half of the nodes has one kind of GPU, the second half another."""
    return "a100" if 2 * int(node[1:]) <= settings.num_nodes + 1 else "v100"


def node_lines(settings: Settings) -> list[str]:
    lines = []
    for node in settings.nodes:
        kind = gpu_type(settings, node)
        gres = f"Gres=gpu:{kind}:{settings.gpus} " if settings.gpus else ""
        rack = f"rack{1 + int(node[1:]) % 2}"
        size = f"CPUs={settings.cpus} RealMemory={settings.memory_mib}"
        lines.append(f"NodeName={node} NodeAddr={address(node)} Port=6818 {size} {gres}Feature={kind},{rack}")
    return lines


def partition_lines(settings: Settings) -> list[str]:
    every = "PartitionName=DEFAULT Nodes=ALL DefaultTime=10 State=UP"
    return [every, *(line for line in PARTITIONS.splitlines() if line)]


def gres_conf(place: Place, settings: Settings) -> str:
    """GPUs must be files: those that have only a count are refused by SLURM 22.05."""
    last = settings.gpus - 1
    files = f"{place.state}/dev/nvidia" + ("0" if last == 0 else f"[0-{last}]")
    return "".join(f"NodeName={node} Name=gpu Type={gpu_type(settings, node)} File={files}\n" for node in settings.nodes if settings.gpus)


def cgroup_conf(settings: Settings) -> str:
    """Cores are not constrained: nodes have more of them than the machine."""
    constrain = "yes" if settings.cgroups == "v1" else "no"
    return f"""CgroupPlugin=cgroup/v1
CgroupAutomount=no
CgroupMountpoint=/sys/fs/cgroup
ConstrainCores=no
ConstrainRAMSpace={constrain}
ConstrainSwapSpace=no
ConstrainDevices={constrain}
"""


def slurmdbd_conf(place: Place) -> str:
    return f"""AuthType=auth/munge
DbdHost=ctl
DbdAddr={address("ctl")}
SlurmUser=root
LogFile={place.log}/slurmdbd.log
PidFile={place.run}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=3306
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""


DATABASE_INIT = """CREATE DATABASE IF NOT EXISTS slurm;
CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm.* TO 'slurm'@'127.0.0.1';
"""


def hosts(settings: Settings) -> str:
    lines = ["127.0.0.1 localhost", f"{address('ctl')} ctl login", *(f"{address(node)} {node}" for node in settings.nodes)]
    return "\n".join(lines) + "\n"


def login_script(place: Place) -> str:
    """Runs a command on the login host.

    That host has the controller's network, but the machine's processes and files: signals, working directory, standard input and
    /tmp are the caller's. The commands made for callers outside are hidden there.
    """
    return f"""#!/bin/sh
exec nsenter --net=/run/netns/es-{place.name}-ctl unshare --mount --uts sh -c '
  echo login > /proc/sys/kernel/hostname
  mount --bind {place.hosts_file} /etc/hosts && mount --bind {place.slurm} /etc/slurm && mount --bind {place.run} /run/munge &&
  mount --bind {place.state}/empty {COMMANDS} && exec "$@"' sh "$@"
"""


def write(place: Place, settings: Settings) -> None:
    """Every file and folder that the daemons of the cluster need."""
    for folder in ("etc/slurm", "run", "log", "hosts", "controller", "dev", "node", "empty", "tmp"):
        (place.state / folder).mkdir(parents=True, exist_ok=True)
    shared = place.state / "shared"
    shared.mkdir(exist_ok=True)
    shared.chmod(0o1777)
    place.database.mkdir(parents=True, exist_ok=True)
    Path("/run/munge").mkdir(exist_ok=True)
    key = place.state / "etc/munge.key"
    if not key.exists():
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
    # device files that nothing answers (major 195 is NVIDIA's), so that a device cgroup has something to forbid;
    # never /dev/null, which jobs without a GPU would lose
    for gpu in range(settings.gpus):
        if not (device := place.state / f"dev/nvidia{gpu}").exists():
            os.mknod(device, 0o20666, os.makedev(195, gpu))
    place.hosts_file.write_text(hosts(settings))
    (place.slurm / "slurm.conf").write_text(slurm_conf(place, settings))
    (place.slurm / "gres.conf").write_text(gres_conf(place, settings))
    (place.slurm / "cgroup.conf").write_text(cgroup_conf(settings))
    (place.slurm / "slurmdbd.conf").write_text(slurmdbd_conf(place))
    (place.slurm / "slurmdbd.conf").chmod(0o600)
    (place.state / "etc/init.sql").write_text(DATABASE_INIT)
    write_commands(place)


def write_commands(place: Place) -> None:
    place.login.write_text(login_script(place))
    place.login.chmod(0o755)
    place.commands.mkdir(parents=True, exist_ok=True)
    if not place.bin.is_symlink():
        place.bin.symlink_to(place.commands)
    for command in "sbatch squeue sacct scontrol sinfo sacctmgr scancel srun salloc sstat sprio".split():
        wrapper = place.commands / command
        wrapper.write_text(f'#!/bin/sh\nexec {place.login} /usr/bin/{command} "$@"\n')
        wrapper.chmod(0o755)

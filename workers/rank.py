"""One rank of a task: takes its number from srun where that started it, then becomes the command: `python -P -m workers.rank ...`."""

import os
import signal
import sys

_FROM_SRUN = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID"}


def main(argv: list[str]) -> None:
    """Run `argv` in the place of this process."""
    for name, source in _FROM_SRUN.items():
        os.environ.setdefault(name, os.environ.get(source, "0"))
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # the warning; a command that cannot checkpoint goes on until it is killed
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.exit(f"{argv[0]} cannot be run on {os.uname().nodename} ({error.strerror}); give its full path, or one that is on PATH there")


if __name__ == "__main__":
    main(sys.argv[1:])

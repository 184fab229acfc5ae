"""The command of a job on a node: `python -P -m workers ROOT TOKEN`."""

import sys
from pathlib import Path

from workers.errors import EigensweepError


def main(arguments: list[str]) -> int:
    """Run the batch TOKEN of the store ROOT."""
    if len(arguments) != 2:
        print("usage: python -P -m workers ROOT TOKEN", file=sys.stderr)
        return 2
    from workers import files, job

    files.set_umask()
    try:
        return job.main(Path(arguments[0]), arguments[1])
    except EigensweepError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

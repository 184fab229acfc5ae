"""Becomes a command that dies with the process that starts it: `python -P -m workers.sharded.scalapack_start PID ARGV...`.

mpirun's ranks outlive mpirun otherwise.
"""

import os
import sys

from workers.processes import die_with

if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])

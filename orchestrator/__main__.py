"""`python -m orchestrator`: the same command line, for debuggers and for jobs that tick."""

import sys

from orchestrator.cli import main

sys.exit(main())

"""`python -m gateway.cli` is `whence`."""

import sys

from gateway.cli.command import main

sys.exit(main())

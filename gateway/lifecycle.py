"""Whether this process is stopping. Set by the gunicorn worker, read by /readyz."""

import threading
from typing import Final

draining: Final = threading.Event()

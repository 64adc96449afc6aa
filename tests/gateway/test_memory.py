"""Memory that lies free between small blocks goes back to the system."""

import subprocess
import sys

import pytest

from tests.gateway.processes import ROOT

_PROGRAM = """
import re
from pathlib import Path
from gateway import memory
def resident(): return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
memory.give_back()
blocks = [bytes(10_000) for _ in range(10_000)]
kept = blocks[::500]  # in use here and there, so that nothing is given back by itself
kept.append(bytes(10_000))
del blocks
before = resident()
memory.trim()
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be asked to give free memory back")
def test_free_memory_between_small_blocks_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 50, f"{done.stdout} MiB of 95"

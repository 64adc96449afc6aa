"""Memory goes back to the system, but not that which the next picture needs."""

import platform
import subprocess
import sys

import pytest

from tests.gateway.processes import ROOT

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told what to keep")

_START = """
import io, re, resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image
from serving import memory
from serving.images import decode
def resident(): return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
memory.bound()
"""


def _printed(program: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _START + program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def test_free_memory_between_small_blocks_goes_back() -> None:
    given_back = _printed(
        """
blocks = [bytes(10_000) for _ in range(10_000)]
kept = blocks[::500]  # in use here and there, so that nothing is given back by itself
kept.append(bytes(10_000))
del blocks
before = resident()
memory.trim()
print(before - resident())
"""
    )
    assert given_back > 50, f"{given_back} MiB of 95"


def test_ordinary_pictures_find_the_memory_of_those_before() -> None:
    pages = _printed(
        """
pictures = [path.read_bytes() for path in sorted(Path("tests/images").glob("*.jpg"))]
def taken():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for picture in pictures: decode(picture)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / len(pictures)
taken()
print(min(taken() for _ in range(5)))
"""
    )
    assert pages < 25, f"{pages} pages for each picture; glibc's smallest bounds take 250"


def test_the_memory_of_large_pictures_goes_back_by_itself() -> None:
    more = _printed(
        """
file = io.BytesIO()
Image.new("RGB", (3000, 3000)).save(file, "PNG")
threads = ThreadPoolExecutor(8)
def decoded(): list(threads.map(lambda _: decode(file.getvalue()), range(32)))
before = resident()
decoded()
print(resident() - before)
"""
    )
    assert more < 100, f"{more} MiB are kept"

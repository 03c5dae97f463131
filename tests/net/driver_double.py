"""A double of the NVIDIA driver: a C library that answers what a test wants, of one GPU at most."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from vo_stream.net import cuda

SOURCE = """
#include <stdlib.h>
#include <string.h>
static int number(const char *name) { const char *v = getenv(name); return v ? atoi(v) : 0; }
int cuInit(unsigned flags) { return number("DOUBLE_INIT"); }
int cuDriverGetVersion(int *version) { *version = number("DOUBLE_VERSION"); return 0; }
int cuDeviceGetCount(int *count) { *count = number("DOUBLE_COUNT"); return 0; }
int cuDeviceGet(int *device, int index) { *device = 7; return index != 0; }
int cuDeviceGetName(char *name, int length, int device) {
  strncpy(name, getenv("DOUBLE_NAME"), length);
  return device != 7;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  int capability = number("DOUBLE_CAPABILITY");
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : -1;
  return device != 7;
}
int cuGetErrorString(int error, const char **text) { *text = "as told"; return 0; }
"""


class DriverDouble:
    """Stands in for the driver during one test; without `install` there is none."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(cuda, "DRIVER", str(folder / "libcuda_that_is_missing.so.1"))

    def install(
        self, name: str = "", capability: int = 0, *, init: int = 0, version: int = 13000
    ) -> None:
        """Let there be a driver, with a GPU of that name and, as 87, compute capability."""
        compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
        library = self._folder / "libcuda_double.so.1"
        if not library.exists():
            command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
            subprocess.run(command, input=SOURCE, text=True, check=True, timeout=60)
        answers = {
            "INIT": init, "VERSION": version, "COUNT": int(bool(name)), "NAME": name,
            "CAPABILITY": capability,
        }  # fmt: skip
        for key, value in answers.items():
            self._monkeypatch.setenv(f"DOUBLE_{key}", str(value))
        self._monkeypatch.setattr(cuda, "DRIVER", str(library))


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DriverDouble:
    """A machine without a driver, until the test installs one."""
    return DriverDouble(tmp_path, monkeypatch)

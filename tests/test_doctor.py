from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from vo_stream.doctor import examine


def test_this_machine_is_sound() -> None:
    findings = {f.what: f for f in examine()}
    assert all(f.ok for f in findings.values() if f.required)
    assert findings["backend geometric"].ok
    for library in ("numpy", "numba", "zmq"):
        assert findings[library].detail[0].isdigit()
    for way in ("adjuster here", "adjuster elsewhere"):
        assert findings[way].ok


@pytest.mark.parametrize(
    ("library", "line"),
    [("cv2", "backends"), ("numba", "adjuster's solver"), ("zmq", "adjuster's link")],
)
def test_a_library_that_does_not_load_is_found_not_raised(library: str, line: str) -> None:
    """With one that cannot be imported the doctor still answers, and says so."""
    answer = doctor_after(f"import sys; sys.modules[{library!r}] = None")
    assert f"--  {line}" in answer
    assert library in answer


def test_it_says_where_the_solver_is_kept(tmp_path: Path) -> None:
    answer = doctor_after("", NUMBA_CACHE_DIR=str(tmp_path))
    (line,) = (line for line in answer.splitlines() if "adjuster's solver" in line)
    assert line.startswith("ok")
    assert str(tmp_path) in line


def test_it_says_where_no_folder_can_keep_the_solver() -> None:
    code = """
        import numba
        njit_without_cache = numba.njit
        def njit(**options):
            if options.pop("cache", False):
                raise RuntimeError("cannot cache function: no locator available")
            return njit_without_cache(**options)
        numba.njit = njit
    """
    answer = doctor_after(textwrap.dedent(code))
    assert "--  adjuster's solver" in answer
    assert "NUMBA_CACHE_DIR" in answer


def test_it_says_that_the_compiler_is_switched_off() -> None:
    answer = doctor_after("", NUMBA_DISABLE_JIT="1")
    assert "unset NUMBA_DISABLE_JIT" in answer


def doctor_after(code: str, **environment: str) -> str:
    """Return what the doctor prints in a process that runs some code first."""
    code += "\nfrom vo_stream.cli import main\nmain(['doctor'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.stdout

"""Where machine code is kept, and when it is made anew: each process has a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from vo_stream.adjust.solver import compile_solver

ROOT = Path(__file__).parents[2]

SOLVE = """
    import time
    from vo_stream.adjust.solver import compile_solver
    begin = time.process_time()
    compile_solver()
    print(time.process_time() - begin)
"""
LOADED_S = 2.0
"""Processor time; measured are 0.2 s to load the solver and 8 s to compile it."""

SAMPLE = """
    \"\"\"An entry point and its helper.\"\"\"
    from vo_stream.adjust.compiled import compiled
    from vo_stream.adjust.sample_helper import twice

    @compiled
    def answer(x):
        return twice(x) + 1.0
"""
HELPER = """
    \"\"\"The helper.\"\"\"
    from vo_stream.adjust.compiled import helper

    @helper
    def twice(x):
        return 2.0 * x
"""
ASK = "from vo_stream.adjust.sample import answer; print(answer(1.5))"


def started(
    code: str, package_at: Path, home: Path | str, **environment: str
) -> subprocess.Popen[str]:
    """Start Python on `code`, its user's folder `home` and no other variables of the cache."""
    dropped = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME", "PYTHONPATH", "USERPROFILE")
    kept = {k: v for k, v in os.environ.items() if k not in dropped}
    kept |= {"HOME": str(home), "PYTHONPATH": str(package_at), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=kept | environment, cwd=package_at, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def answer_of(process: subprocess.Popen[str]) -> float:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return float(out)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder with a copy of the package and a small compiled function in it."""
    folder = tmp_path / "site" / "vo_stream"
    shutil.copytree(ROOT / "vo_stream", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "adjust" / "sample.py").write_text(textwrap.dedent(SAMPLE), encoding="utf-8")
    (folder / "adjust" / "sample_helper.py").write_text(textwrap.dedent(HELPER), encoding="utf-8")
    return folder.parent


def lock(package: Path) -> None:
    """Make it read-only, for the superuser too: no folder can be made where a file lies."""
    adjust = package / "vo_stream" / "adjust"
    (adjust / "__pycache__").write_text("", encoding="utf-8")
    adjust.chmod(0o555)


def machine_code(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.nbc"))


def test_the_second_process_loads_what_the_first_compiled() -> None:
    """Here, where the cache is that of the user; compiling takes about ten seconds."""
    compile_solver()
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SOLVE)], cwd=ROOT, text=True, check=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert float(answer.stdout) < LOADED_S


def test_two_processes_that_begin_at_once_do_not_collide(package: Path) -> None:
    both = [started(ASK, package, package) for _ in range(2)]
    assert [answer_of(process) for process in both] == [4.0, 4.0]
    (kept,) = machine_code(package)
    written = kept.stat().st_mtime_ns
    assert answer_of(started(ASK, package, package)) == 4.0
    assert kept.stat().st_mtime_ns == written


def test_a_changed_helper_is_noticed(package: Path) -> None:
    assert answer_of(started(ASK, package, package)) == 4.0
    assert len(machine_code(package)) == 1
    source = package / "vo_stream" / "adjust" / "sample_helper.py"
    stamp = source.stat().st_mtime
    source.write_text(source.read_text(encoding="utf-8").replace("2.0", "3.0"), encoding="utf-8")
    os.utime(source, (stamp, stamp))
    assert answer_of(started(ASK, package, package)) == 5.5


def test_beside_the_source_first_then_with_the_user(package: Path, tmp_path: Path) -> None:
    lock(package)
    home = tmp_path / "home"
    home.mkdir()
    assert answer_of(started(ASK, package, home)) == 4.0
    assert len(machine_code(home)) == 1
    assert machine_code(package) == []


def test_a_folder_may_be_chosen(package: Path, tmp_path: Path) -> None:
    lock(package)
    cache = tmp_path / "cache"
    assert answer_of(started(ASK, package, os.devnull, NUMBA_CACHE_DIR=str(cache))) == 4.0
    assert len(machine_code(cache)) == 1


@pytest.mark.parametrize("environment", [{}, {"NUMBA_CACHE_DIR": os.devnull}])
def test_without_any_folder_each_process_compiles(
    package: Path, environment: dict[str, str]
) -> None:
    lock(package)
    assert answer_of(started(ASK, package, os.devnull, **environment)) == 4.0
    assert machine_code(package) == []


def test_a_damaged_cache_is_survived(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for damage in (b"", b"\x80\x05rubbish"):
        assert answer_of(started(ASK, package, tmp_path, NUMBA_CACHE_DIR=str(cache))) == 4.0
        for kept in [*machine_code(cache), *cache.rglob("*.nbi")]:
            kept.write_bytes(damage)
    assert answer_of(started(ASK, package, tmp_path, NUMBA_CACHE_DIR=str(cache))) == 4.0


def test_a_foreign_cache_is_survived(package: Path, tmp_path: Path) -> None:
    """Files that another version of the libraries wrote: they name what is not there."""
    cache = tmp_path / "cache"
    for damage in (b"cno_such_module\nname\n.", b"cos\nno_such_name\n.", b"I1x\n."):
        assert answer_of(started(ASK, package, tmp_path, NUMBA_CACHE_DIR=str(cache))) == 4.0
        for kept in machine_code(cache):
            kept.write_bytes(damage)
    assert answer_of(started(ASK, package, tmp_path, NUMBA_CACHE_DIR=str(cache))) == 4.0


def test_nothing_else_imports_numba() -> None:
    code = """
        import sys
        import vo_stream.cli, vo_stream.track.odometer, vo_stream.replay.run, vo_stream.doctor
        print(float("numba" in sys.modules))
    """
    assert answer_of(started(code, ROOT, ROOT)) == 0.0


def test_the_cache_knows_all_that_machine_code_is_made_of() -> None:
    """A module beside those that compile, and imported by one, must be in the fingerprint, too."""
    texts = {
        p.stem: p.read_text(encoding="utf-8") for p in (ROOT / "vo_stream/adjust").glob("*.py")
    }
    name = "vo_stream.adjust.compiled"
    compiling = {m for m, text in texts.items() if "@helper" in text or "@compiled" in text}
    assert {"solver", "problem", "factors", "sightings", "linear"} <= compiling
    for module in compiling:
        for imported in re.findall(r"^from vo_stream\.adjust\.(\w+) import", texts[module], re.M):
            assert imported == "compiled" or name in texts[imported], f"{module}: {imported}"


def test_a_state_of_other_fields_is_noticed(package: Path) -> None:
    """What compiled code unpacks is not part of its signature."""
    ask = """
        from vo_stream.adjust import solver
        print(float(int(solver._levenberg_marquardt.__wrapped__.py_func.__qualname__[-12:], 16)))
    """
    before = answer_of(started(ask, package, package))
    source = package / "vo_stream" / "adjust" / "problem.py"
    source.write_text(source.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert answer_of(started(ask, package, package)) != before

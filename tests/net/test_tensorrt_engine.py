"""The cache of engines, with engines that TensorRT-RTX builds: it needs no GPU for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_cases import SIZE, small_network

from vo_stream.errors import NetError
from vo_stream.net import tensorrt_engine
from vo_stream.net.cuda import Gpu
from vo_stream.net.sidecar import read_sidecar
from vo_stream.net.tensorrt_engine import (
    KEPT,
    EngineOptions,
    cached_engine,
    default_folder,
    forget_engine,
    key_of,
)
from vo_stream.net.tensorrt_library import Library

rtx = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)

LIBRARY = Library(rtx, "tensorrt_rtx", rtx.__version__)
OTHER_VERSION = LIBRARY._replace(version="1.0.0.0")
FULL = LIBRARY._replace(name="tensorrt")
"""Not TensorRT: the same API under that name, as far as only names matter."""

GPU = Gpu("Some GPU", (8, 7))
OTHER_SIZE = (64, 64)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    return small_network(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Each build that happens, while it still happens."""
    happened: list[object] = []
    build = tensorrt_engine.build_engine

    def counted(*arguments: object) -> bytes:
        happened.append(arguments)
        return build(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tensorrt_engine, "build_engine", counted)
    return happened


def cached(
    model_file: Path,
    folder: Path | None,
    library: Library = LIBRARY,
    gpu: Gpu | None = None,
    size: tuple[int, int] = SIZE,
    options: EngineOptions = EngineOptions(),  # noqa: B008
    progress: Callable[[str, float], None] | None = None,
) -> Path:
    sidecar = read_sidecar(model_file)
    return cached_engine(library, gpu, model_file, sidecar, size, options, folder, progress)


def test_an_engine_is_built_once(model_file: Path, folder: Path, builds: list[object]) -> None:
    path = cached(model_file, folder)
    content = path.read_bytes()
    assert len(content) > 1000
    assert cached(model_file, folder) == path
    assert path.read_bytes() == content
    assert len(builds) == 1
    assert {file.name for file in folder.iterdir()} == {
        path.name, path.with_suffix(".json").name, "lock"
    }  # fmt: skip


def test_an_engine_built_without_a_gpu_is_found_when_there_is_one(
    model_file: Path, folder: Path, builds: list[object]
) -> None:
    assert cached(model_file, folder) == cached(model_file, folder, gpu=GPU)
    assert len(builds) == 1


def test_what_an_engine_depends_on_is_in_its_key(model_file: Path, tmp_path: Path) -> None:
    options = EngineOptions()
    other_file = small_network(tmp_path, "other", gain=0.25)
    keys = [
        key_of(FULL, GPU, model_file, SIZE, options),
        key_of(LIBRARY, GPU, model_file, SIZE, options),
        key_of(OTHER_VERSION, GPU, model_file, SIZE, options),
        key_of(FULL, GPU._replace(name="Another GPU"), model_file, SIZE, options),
        key_of(FULL, GPU._replace(capability=(8, 6)), model_file, SIZE, options),
        key_of(FULL, GPU, other_file, SIZE, options),
        key_of(FULL, GPU, model_file, OTHER_SIZE, options),
        key_of(FULL, GPU, model_file, SIZE, EngineOptions(workspace_bytes=1 << 20)),
        key_of(FULL, GPU, model_file, SIZE, EngineOptions(optimization_level=5)),
    ]
    texts = {json.dumps(key, sort_keys=True) for key in keys}
    assert len(texts) == len(keys)
    assert [json.loads(json.dumps(key)) for key in keys] == keys


def test_a_moved_network_is_the_same_network(model_file: Path, tmp_path: Path) -> None:
    moved = small_network(tmp_path / "..", model_file.stem).resolve()
    keys = [key_of(LIBRARY, None, file, SIZE, EngineOptions()) for file in (model_file, moved)]
    assert keys[0] == keys[1]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def deleted(path: Path) -> None:
    path.unlink()


def not_described(path: Path) -> None:
    path.with_suffix(".json").unlink()


def described_by_noise(path: Path) -> None:
    path.with_suffix(".json").write_bytes(b"\xff{")


def described_by_a_list(path: Path) -> None:
    path.with_suffix(".json").write_text("[]")


def of_another_library(path: Path) -> None:
    about = json.loads(path.with_suffix(".json").read_text())
    about["library"][1] = OTHER_VERSION.version
    path.with_suffix(".json").write_text(json.dumps(about))


def of_another_schema(path: Path) -> None:
    about = json.loads(path.with_suffix(".json").read_text())
    about["schema"] += 1
    path.with_suffix(".json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    "damage",
    [truncated, flipped, emptied, deleted, not_described, described_by_noise, described_by_a_list,
     of_another_library, of_another_schema],
)  # fmt: skip
def test_what_is_not_the_right_engine_is_built_anew(
    damage: Callable[[Path], None], model_file: Path, folder: Path, builds: list[object]
) -> None:
    path = cached(model_file, folder)
    damage(path)
    assert cached(model_file, folder) == path
    assert len(builds) == 2
    assert cached(model_file, folder) == path
    assert len(builds) == 2


def test_an_engine_under_the_name_of_another_is_not_taken(
    model_file: Path, folder: Path, builds: list[object]
) -> None:
    """Neither alone nor together with its description."""
    path, other = cached(model_file, folder), cached(model_file, folder, size=OTHER_SIZE)
    other.replace(path)
    cached(model_file, folder)
    assert len(builds) == 3
    other = cached(model_file, folder, size=OTHER_SIZE)
    other.replace(path)
    other.with_suffix(".json").replace(path.with_suffix(".json"))
    assert len(builds) == 4
    cached(model_file, folder)
    assert len(builds) == 5


def test_an_engine_that_does_not_load_is_forgotten(
    model_file: Path, folder: Path, builds: list[object]
) -> None:
    path = cached(model_file, folder)
    forget_engine(path)
    assert not path.exists()
    forget_engine(path)
    cached(model_file, folder)
    assert len(builds) == 2


def test_a_build_that_fails_leaves_nothing(model_file: Path, folder: Path) -> None:
    model_file.write_bytes(b"not a network")
    with pytest.raises(NetError, match="cannot read it"):
        cached_engine(
            LIBRARY, None, model_file, read_sidecar(small_network(model_file.parent, "good")),
            SIZE, EngineOptions(), folder,
        )  # fmt: skip
    assert [file.name for file in folder.iterdir()] == ["lock"]


def test_old_engines_and_unfinished_files_go(
    model_file: Path, folder: Path, builds: list[object]
) -> None:
    sizes = [(64 + 32 * index, 64) for index in range(KEPT + 1)]
    paths = [cached(model_file, folder, size=size) for size in sizes[:KEPT]]
    for age, path in enumerate(paths):
        os.utime(path, (age, age))
    cached(model_file, folder, size=sizes[0])  # used: the oldest is the second now
    (folder / "left.engine.partial").write_bytes(b"by a process that was killed")
    newest = cached(model_file, folder, size=sizes[KEPT])
    assert set(folder.glob("*.engine")) == {paths[0], *paths[2:], newest}
    assert len(list(folder.glob("*.json"))) == KEPT
    assert not list(folder.glob("*.partial"))


def test_a_full_library_needs_the_gpu(model_file: Path, folder: Path) -> None:
    with pytest.raises(NetError, match="only on the GPU"):
        cached(model_file, folder, library=FULL)


def test_a_folder_that_others_may_write_to_is_refused(model_file: Path, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(NetError, match="others may write"):
        cached(model_file, folder)


def test_a_folder_of_ours_is_for_nobody_else(model_file: Path, folder: Path) -> None:
    cached(model_file, folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_is_said_in_one_line(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NetError, match=r"file.*: (file exists|not a directory)"):
        cached(model_file, tmp_path / "file")
    with pytest.raises(NetError, match="not a directory"):
        cached(model_file, tmp_path / "file" / "engines")


def test_the_default_folder_is_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "vo_stream" / "engines"
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert default_folder() == tmp_path / "home" / ".cache" / "vo_stream" / "engines"


PROCESS = """
    import sys, time
    from pathlib import Path
    import tensorrt_rtx
    from vo_stream.net import tensorrt_engine
    from vo_stream.net.sidecar import read_sidecar
    from vo_stream.net.tensorrt_engine import EngineOptions, cached_engine
    from vo_stream.net.tensorrt_library import Library

    build = tensorrt_engine.build_engine
    def build_and_say(*arguments):
        print("built", flush=True)
        sys.stdin.readline()  # for as long as the test wants
        return build(*arguments)
    tensorrt_engine.build_engine = build_and_say
    def say(phase, done):
        if phase.startswith("waiting"):
            print("waits", flush=True)
    model_file, folder = map(Path, sys.argv[1:])
    library = Library(tensorrt_rtx, "tensorrt_rtx", tensorrt_rtx.__version__)
    print("ready", flush=True)
    sys.stdin.readline()
    path = cached_engine(
        library, None, model_file, read_sidecar(model_file), {size}, EngineOptions(), folder, say
    )
    print(path, flush=True)
"""


@pytest.fixture
def processes(model_file: Path, folder: Path) -> list[subprocess.Popen[str]]:
    """Two that are about to ask for the same engine; a line of input lets them go on."""
    code = textwrap.dedent(PROCESS).format(size=SIZE)
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(model_file), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [heard(process) for process in both] == ["ready", "ready"]
    return both


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_two_processes_one_builds_and_the_other_waits(
    processes: list[subprocess.Popen[str]], folder: Path
) -> None:
    first, second = processes
    go_on(first)
    assert heard(first) == "built"
    go_on(second)
    assert heard(second) == "waits"
    go_on(first)
    paths = {heard(first), heard(second)}
    assert [process.wait(60) for process in processes] == [0, 0]
    assert [Path(path).parent for path in paths] == [folder]
    for process in processes:
        process.communicate()


def test_a_process_that_is_killed_leaves_the_way_free(
    processes: list[subprocess.Popen[str]],
) -> None:
    first, second = processes
    go_on(first)
    assert heard(first) == "built"
    go_on(second)
    assert heard(second) == "waits"
    first.kill()
    assert heard(second) == "built"
    go_on(second)
    assert heard(second).endswith(".engine")
    assert second.wait(60) == 0
    for process in processes:
        process.communicate()

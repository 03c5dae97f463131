"""Who may import what: the rules of the house, checked on the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "vo_stream"
ROOT = Path(__file__).parent.parent
MAX_LINES = 330

GROUND = (
    "errors", "se3", "camera", "values", "setting", "config", "io_config", "net_config",
    "encodings", "messages", "corners", "travelled", "pose_error",
)  # fmt: skip
ROOMS = ("net", "track", "adjust", "link", "replay", "ros", "training", "demo")
DOORS = ("cli", "cli_*", "doctor")

ROS_PACKAGES = (
    "rclpy", "rcl_interfaces", "lifecycle_msgs", "builtin_interfaces", "tf2_ros", "tf2_msgs",
    "sensor_msgs", "nav_msgs", "geometry_msgs", "std_msgs", "std_srvs", "diagnostic_msgs",
    "rosgraph_msgs",
)  # fmt: skip

ONLY_IN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(ROS_PACKAGES, ("ros.*",)),
    "zmq": ("link.*",),
    "torch": ("net.model", "net.encoder", "net.matching", "net.alignment", "net.ego_motion",
              "net.rigid", "net.recurrent", "net.judge", "net.torch_net", "net.export",
              "training.*"),
    **dict.fromkeys(("onnx", "onnx_ir", "onnxscript"), ("net.export", "net.quantize")),
    "safetensors": ("net.torch_net", "net.export", "training.*"),
    "tensorboardX": ("training.log",),
    **dict.fromkeys(("tensorrt", "tensorrt_rtx"), ("net.tensorrt_library",)),
    "cuda": ("net.cuda_memory",),
    "onnxruntime": ("net.onnx_net",),
    "numba": ("adjust.*",),
    "rosbags": ("replay.*",),
    "transforms3d": ("se3",),
    "rerun": ("replay.report", "replay.viewer"),
    "matplotlib": ("replay.report", "replay.viewer"),
    "click": ("cli", "cli_*"),
    "tqdm": ("replay.progress", "training.*"),
    "yaml": ("replay.*",),
    "cv2": ("camera", "corners", "encodings", "net.*", "track.*", "replay.*", "demo.*",
            "adjust.*", "ros.*", "training.*"),
    "numpy": ("*",),
}  # fmt: skip
"""Third-party package: the modules that may import it. What is not named here nobody imports."""

ENVIRONMENT = ("os.environ", "os.getenv", "environ", "getenv")

THE_GROUND = (*GROUND, "")
NEVER: list[tuple[str, str, tuple[str, ...]]] = [
    *((module, "*", THE_GROUND) for module in GROUND),
    ("demo.*", "*", THE_GROUND),
    ("track.*", "*", (*THE_GROUND, "net.stepnet")),
    ("net.*", "*", THE_GROUND),
    ("adjust.*", "*", THE_GROUND),
    ("link.*", "*", (*THE_GROUND, "adjust.*")),
    ("replay.*", "ros.*", ()),
    ("replay.*", "demo.*", ()),
    ("ros.node", "adjust.*", ()),
    ("*", "training.*", ()),
    ("*", "cli", ()),
    ("*", "cli_*", ()),
    ("*", "doctor", ()),
]
"""(importer, imported, but these it may): modules without the package's name, "" for the package
itself. Modules of one room may import each other."""

ALLOWED = {("cli", "doctor"), ("cli", "cli_*"), ("cli_*", "cli_*")}
"""(importer, imported) that `NEVER` does not mean."""


class Module(NamedTuple):
    name: str
    tree: ast.Module
    lines: int


def module_of(name: str, source: str) -> Module:
    return Module(name, ast.parse(source), len(source.splitlines()))


def package_modules() -> list[Module]:
    modules = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules.append(module_of(name, path.read_text(encoding="utf-8")))
    return modules


def matches(name: str, pattern: str) -> bool:
    """Say whether a module is meant: `net.*` means the room and all that is in it."""
    return fnmatch(name, pattern) or (pattern.endswith(".*") and name == pattern[:-2])


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without what only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from runtime_nodes(node)


def imports(module: Module, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield (package, module inside vo_stream) of every import, in functions too."""
    for node in runtime_nodes(module.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name}: relative import"
            base = node.module or ""
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                names.append(inner if inner in known else base)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            names = [str(argument.value)] if isinstance(argument, ast.Constant) else []
        for name in names:
            package = name.split(".")[0]
            yield package, name.removeprefix(package).lstrip(".") if package == PACKAGE else ""


def faults(modules: list[Module]) -> list[str]:
    """Return what breaks the rules, one line each."""
    known = frozenset(f"{PACKAGE}.{m.name}" for m in modules)
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for module in modules:
        graph[module.name] = set()
        for package, target in imports(module, known):
            if package == PACKAGE:
                graph[module.name].add(target)
                found += broken_rules(module.name, target)
            elif package == "tools":
                found.append(f"{module.name} imports tools")
            elif package not in sys.stdlib_module_names and not any(
                matches(module.name, pattern) for pattern in ONLY_IN.get(package, ())
            ):
                found.append(f"{module.name} imports {package}")
        if module.lines > MAX_LINES:
            found.append(f"{module.name} has {module.lines} lines")
        if not ast.get_docstring(module.tree):
            found.append(f"{module.name} has no docstring")
        found += [f"{module.name} {what}" for what in bad_manners(module)]
    return found + [f"import circle: {' -> '.join(circle)}" for circle in circles(graph)]


def broken_rules(importer: str, target: str) -> Iterator[str]:
    same_room = importer.split(".")[0] == target.split(".")[0]
    if same_room or any(matches(importer, who) and matches(target, w) for who, w in ALLOWED):
        return
    for who, whom, but in NEVER:
        if matches(importer, who) and matches(target, whom):
            if any(matches(target, pattern) for pattern in but):
                continue
            yield f"{importer} imports {PACKAGE}.{target}"
            return


def bad_manners(module: Module) -> Iterator[str]:
    for node in run_at_import(module.tree):
        if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node) in ENVIRONMENT:
            yield "reads the environment when imported"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield "prints"


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Walk all but the bodies of functions."""
    yield node
    function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for field, value in ast.iter_fields(node):
        if not (function and field == "body"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from run_at_import(child)


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the import circles, each once, as the modules on the way round."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> None:
        if module in way:
            found.append([*way[way.index(module) :], module])
            return
        if module in done:
            return
        for target in sorted(graph.get(module, ())):
            visit(target, [*way, module])
        done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found


def test_the_house_keeps_its_rules() -> None:
    assert faults(package_modules()) == []


def test_the_table_is_about_modules_that_the_plan_knows() -> None:
    rooms = {m.name.split(".")[0] for m in package_modules()} - {""}
    known = (*GROUND, *ROOMS, *DOORS)
    strangers = {room for room in rooms if not any(matches(room, name) for name in known)}
    assert not strangers, "a new room needs its rules in this file"


def test_settings_read_no_files() -> None:
    (config,) = (m for m in package_modules() if m.name == "config")
    readers = {"os", "io", "pathlib", "json", "tomllib", "yaml"}
    assert not readers & {package for package, _ in imports(config, frozenset())}


DOC = '"""A module."""\n'

OFFENCES = [
    ("net.geometric_net", "import torch", "net.geometric_net imports torch"),
    ("track.odometer", "def f():\n    import torch.nn as nn", "track.odometer imports torch"),
    ("replay.run", "from sensor_msgs.msg import Image", "replay.run imports sensor_msgs"),
    ("track.odometer", "import rclpy", "track.odometer imports rclpy"),
    ("adjust.solver", "import zmq", "adjust.solver imports zmq"),
    ("net.trt_net", "import tensorrt", "net.trt_net imports tensorrt"),
    ("net.trt_net", "from cuda.bindings import runtime", "net.trt_net imports cuda"),
    ("net.trt_net", 'import_module("cuda.bindings.runtime")', "net.trt_net imports cuda"),
    ("demo.world", "from rosbags.rosbag2 import Writer", "demo.world imports rosbags"),
    ("camera", "from transforms3d import quaternions", "camera imports transforms3d"),
    ("replay.svg", "import matplotlib.pyplot", "replay.svg imports matplotlib"),
    ("replay.run", "import click", "replay.run imports click"),
    ("track.odometer", "from tqdm import tqdm", "track.odometer imports tqdm"),
    ("config", "import yaml", "config imports yaml"),
    ("se3", "import cv2", "se3 imports cv2"),
    ("net.model", "import scipy", "net.model imports scipy"),
    ("net.model", 'importlib.import_module("rclpy")', "net.model imports rclpy"),
    ("track.odometer", "from vo_stream.adjust import solver", "vo_stream.adjust"),
    ("track.odometer", "import vo_stream.link.wire", "vo_stream.link.wire"),
    ("track.odometer", "from vo_stream.net.geometric_net import X", "vo_stream.net.geometric_net"),
    ("track.odometer", "from vo_stream.net import backends", "vo_stream.net"),
    ("track.odometer", "from vo_stream.replay.run import replay", "vo_stream.replay.run"),
    ("net.model", "from vo_stream.track.status import S", "vo_stream.track.status"),
    ("net.model", "def f():\n    from vo_stream.replay import svg", "vo_stream.replay"),
    ("camera", "from vo_stream.net.stepnet import NetSpec", "vo_stream.net.stepnet"),
    ("config", "import vo_stream.track", "vo_stream.track"),
    ("adjust.window", "from vo_stream.net.stepnet import NetSpec", "vo_stream.net.stepnet"),
    ("adjust.window", "from vo_stream.track.odometer import O", "vo_stream.track.odometer"),
    ("ros.node", "from vo_stream.adjust.window import W", "vo_stream.adjust.window"),
    ("demo.world", "from vo_stream.replay.trajectory import N", "vo_stream.replay.trajectory"),
    ("net.model", "import vo_stream.training.loop", "vo_stream.training.loop"),
    ("ros.node", "from vo_stream.cli import main", "vo_stream.cli"),
    ("replay.run", "from vo_stream.doctor import examine", "vo_stream.doctor"),
    ("replay.run", "from tools.make_demo import main", "replay.run imports tools"),
    ("replay.run", "import os\nHOME = os.environ['HOME']", "reads the environment"),
    ("replay.run", "import os\nclass A:\n    x = os.getenv('X')", "reads the environment"),
    ("replay.run", "import os\ndef f(x=os.environ): pass", "reads the environment"),
    ("replay.run", "def f():\n    print('hello')", "replay.run prints"),
    ("replay.run", "x = 1\n" * MAX_LINES, f"has {MAX_LINES + 1} lines"),
]


@pytest.mark.parametrize(("name", "source", "fault"), OFFENCES)
def test_each_rule_can_fail(name: str, source: str, fault: str) -> None:
    (found,) = faults([module_of(name, DOC + source)])
    assert found.startswith(name)
    assert fault in found


def test_a_module_without_a_docstring_is_found() -> None:
    assert faults([module_of("replay.run", "x = 1")]) == ["replay.run has no docstring"]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("net.torch_net", "import torch"),
        ("training.loop", "import torch\nfrom vo_stream.net.model import Model"),
        ("track.odometer", "from vo_stream.net.stepnet import StepNet"),
        ("training.loop", "from vo_stream.training.data import clips"),
        ("cli", "def f():\n    from vo_stream.doctor import examine"),
        ("replay.run", "import os\ndef f():\n    return os.environ['HOME']"),
        ("ros.node", "import rclpy\nfrom vo_stream.track.odometer import Odometer"),
        ("track.odometer", "if TYPE_CHECKING:\n    import torch"),
    ],
)
def test_what_is_allowed_is_no_fault(name: str, source: str) -> None:
    assert faults([module_of(name, DOC + source)]) == []


def test_import_circles_are_found_even_through_functions() -> None:
    sources = {
        "net.a": "from vo_stream.net import b",
        "net.b": "def f():\n    from vo_stream.net.c import x",
        "net.c": "import vo_stream.net.a",
        "net.d": "from vo_stream.net import a",
        "net": "",
    }
    found = faults([module_of(name, DOC + source) for name, source in sources.items()])
    assert found == ["import circle: net.a -> net.b -> net.c -> net.a"]


HEAVY = {
    "vo_stream": ("numpy", "cv2", "torch", "rclpy", "rosbags", "yaml", "click"),
    "vo_stream.track.odometer": ("torch", "rclpy", "rosbags", "yaml", "click", "tqdm", "zmq"),
    "vo_stream.cli": ("torch", "rclpy", "rosbags", "cv2", "numpy", "yaml"),
    "vo_stream.config": ("numpy", "cv2", "yaml"),
    "vo_stream.net.trt_net": ("torch", "onnxruntime", "tensorrt", "tensorrt_rtx", "cuda"),
    "vo_stream.replay.sources": ("torch", "rclpy", "rosbags", "click", "matplotlib"),
}


@pytest.mark.parametrize("module", HEAVY)
def test_importing_a_module_brings_nothing_it_need_not(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not set(HEAVY[module]) & set(answer.stdout.split())

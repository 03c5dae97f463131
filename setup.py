"""The package's description, for pip and colcon alike."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "vo_stream"
HERE = Path(__file__).parent


def version() -> str:
    """Return the version that the package itself states."""
    for line in (HERE / NAME / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("vo_stream/__init__.py states no version")


def shared(folder: str, pattern: str) -> tuple[str, list[str]]:
    """Return a data_files entry: the files of a folder, for share/vo_stream/<folder>."""
    return f"share/{NAME}/{folder}", sorted(str(p) for p in Path(folder).glob(pattern))


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
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        shared("launch", "*.launch.py"),
        shared("config", "*.yaml"),
    ],
    install_requires=[
        "click>=8.1",
        "numba>=0.60",
        "numpy>=1.26",
        "opencv-python-headless>=4.9",
        "pyyaml>=6.0.1",
        "pyzmq>=26.0",
        "rosbags>=0.11.6",
        "tqdm>=4.66",
        "transforms3d>=0.4.2",
    ],
    extras_require={
        "test": [
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
        ]
    },
)

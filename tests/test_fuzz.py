"""Whatever comes in, an answer comes out: damaged input by the hundred.

tools/fuzz.py runs more of the same.
"""

import random
from pathlib import Path

import pytest
from fuzz_cases import CASES, SOURCES, Bench, check_replay, damage, run_case

SEEDS = {"stream": 40}
"""How many cases of a kind; twenty of the others."""


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", SOURCES)
def test_undamaged_recording_is_tracked(name: str, bench: Bench) -> None:
    options = ["--calib", str(bench.recordings / "camera_info.yaml")] if name == "video" else []
    out = bench.fresh() / "out"
    assert check_replay(bench, bench.recordings / SOURCES[name], out, options) == "tracked"


@pytest.mark.parametrize(
    ("kind", "seed"), [(kind, seed) for kind in CASES for seed in range(SEEDS.get(kind, 20))]
)
def test_damaged_input_gets_an_answer(kind: str, seed: int, bench: Bench) -> None:
    run_case(kind, seed, bench)


def test_equal_seeds_damage_equally(tmp_path: Path) -> None:
    file, outcomes = tmp_path / "text", []
    for _ in range(2):
        file.write_text("1.5 abc\n2.5 def\n")
        damage(random.Random(3), file)
        outcomes.append(file.read_bytes())
    assert outcomes[0] == outcomes[1] != b"1.5 abc\n2.5 def\n"

"""`roilab bench` at paper size: what it writes, and that what is compared agrees. How fast it is, no test says."""

import json

import pytest

from roilab import bench


def test_unknown_benchmarks_are_named():
    with pytest.raises(ValueError, match="nonsense"):
        bench.run_benchmarks(["nonsense"])


@pytest.mark.slow
def test_every_benchmark_once(tmp_path, capsys):
    results = bench.run(tmp_path / "bench.json", repeats=1)
    assert json.loads((tmp_path / "bench.json").read_text()) == results and set(results) == set(bench.MEANING)
    shown = capsys.readouterr().out
    for name, value in results.items():
        assert f"`{name}` | {value:.3g} |" in shown
        if name.endswith("_difference"):
            assert value <= 1e-4, name
    assert results["region_encoder_memory_ratio"] <= 1

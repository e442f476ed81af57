"""Every public entry point x every class of bad input: a documented error, or counted; no code runs, nothing hangs, no file is left half written.

The rows stand in `hostile_*.py`. The table with its counts, of all rows in one command:

    pytest tests/test_hostile.py -m slow -s -k table
"""

from collections import Counter

import hostile
import hostile_convert
import hostile_data
import hostile_inputs
import hostile_models
import hostile_tools
import pytest

from roilab.data import table

assert hostile_convert and hostile_data and hostile_inputs and hostile_models and hostile_tools
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory, _session_model, picture):
    return hostile.World(tmp_path_factory.mktemp("hostile"), _session_model, picture)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """No row may read a user's caches or ask on stdin."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(table, "CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("row", hostile.ROWS, ids=str)
@pytest.mark.filterwarnings("ignore")
def test_row(row, world):
    hostile.run(row, world)


@pytest.mark.filterwarnings("ignore")
def test_table(world):
    doubled = [name for name, count in Counter(map(str, hostile.ROWS)).items() if count > 1]
    assert not doubled
    for row in hostile.ROWS:
        hostile.run(row, world)
    print("\n" + hostile.table())
    assert list(hostile.COUNTS) and set(hostile.COUNTS) == set(hostile.ROWS)
    for row, counts in hostile.COUNTS.items():
        assert counts["refused"] + counts["counted"] > 0 or row.outcome in (hostile.EITHER, hostile.UNHARMED), row

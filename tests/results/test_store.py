"""The results store: content keys, exact round trips, and what it says when its file cannot be used."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vsquant.errors import StoreError
from vsquant.results import (
    Candidate,
    CellRecord,
    LayerReport,
    Provenance,
    ResultsStore,
    Scores,
    content_key,
    default_store_path,
)
from vsquant.results import store as store_module


def record(samples: int = 20) -> CellRecord:
    values = np.random.default_rng(samples).normal(size=samples) / 3
    return CellRecord(
        task="squad-minilm",
        spec="w4a8-s4/8-v16",
        kind="vector",
        scale_mode="requantize",
        gamma="static",
        scores=Scores(
            metric="F1",
            unit="%",
            higher_is_better=True,
            values=values,
            groups=np.arange(samples),
            weights=np.ones(samples),
        ),
        seconds=1.25,
        provenance=Provenance(vsquant="0.1.0", torch="2.13.0", machine="m", created="2026-01-01T00:00:00+00:00"),
        activation_calibrator="percentile-99.99",
        criterion="KL of logits",
        candidates=(
            Candidate(activation="max", weight=None, score=0.5),
            Candidate(activation="mse", weight=None, score=math.inf),
        ),
        layers=(
            LayerReport(
                name="a.b",
                kind="Linear",
                rule="*",
                requested="w4a8-s4/8-v16",
                spec=None,
                weights=64,
                padding=0.25,
                unsigned_activations=None,
                note="skipped",
            ),
        ),
    )


INPUTS: dict[str, Any] = {"model": "abc", "data": "def", "limit": None, "options": {"vector": 16, "modes": ["a", "b"]}}
KEY = content_key(INPUTS)


def test_records_come_back_exactly(tmp_path: Path) -> None:
    stored = record()
    with ResultsStore(tmp_path / "new" / "folder" / "results.sqlite") as store:
        assert store.get(KEY) is None
        store.put(KEY, INPUTS, stored)
        assert store.get(KEY) == stored
        assert len(store) == 1
    with ResultsStore(tmp_path / "new" / "folder" / "results.sqlite") as store:
        assert store.get(KEY) == stored
        assert store.keys() == (KEY,)


def test_putting_again_replaces(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "results.sqlite") as store:
        store.put(KEY, INPUTS, record(20))
        store.put(KEY, INPUTS, record(30))
        assert store.get(KEY) == record(30) and len(store) == 1


def test_two_stores_share_one_file(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "results.sqlite") as one, ResultsStore(tmp_path / "results.sqlite") as other:
        one.put(KEY, INPUTS, record())
        assert other.get(KEY) == record()


def test_content_key_is_of_content_only() -> None:
    assert content_key({"b": (1, 2), "a": {"d": 1, "c": "é"}}) == content_key({"a": {"c": "é", "d": 1}, "b": [1, 2]})
    assert len({content_key(inputs) for inputs in ({"a": 1}, {"a": 1.5}, {"a": "1"}, {"a": None}, {"b": 1}, {})}) == 6


def test_content_key_changes_with_the_numerics_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "NUMERICS_VERSION", store_module.NUMERICS_VERSION + 1)
    assert content_key(INPUTS) != KEY


def test_content_key_is_pinned() -> None:
    assert content_key({"spec": "w4a4-s4/4-v16"}) == "83c0df4388348eb619a1449abc16bef15a454db60cd645947e25e62466051d76"


@pytest.mark.parametrize("inputs", [{"a": {1: 2}}, {"a": Path("x")}, {"a": b"x"}])
def test_content_key_refuses_what_json_cannot_say(inputs: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        content_key(inputs)


def test_content_key_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_key({"a": math.nan})


def test_a_key_must_be_of_its_inputs(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "results.sqlite") as store:
        with pytest.raises(ValueError, match="key must be content_key"):
            store.put("0" * 64, INPUTS, record())
        assert len(store) == 0


def test_provenance_is_of_here_and_now() -> None:
    here = Provenance.here(vsquant="1", torch="2")
    assert here.machine and here.created.endswith("+00:00")


def test_default_path_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_store_path() == tmp_path / "vsquant" / "results.sqlite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_store_path() == tmp_path / "home" / ".cache" / "vsquant" / "results.sqlite"


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    path.write_text("these are not results\n" * 100)
    with pytest.raises(StoreError, match=r"must be an intact SQLite database.*delete or move it, or give another path"):
        ResultsStore(path)
    assert path.read_text().startswith("these are not results")


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(StoreError, match="must be a results store, not some other SQLite database"):
        ResultsStore(path)


@pytest.mark.parametrize("version", [0, store_module.SCHEMA_VERSION + 1])
def test_another_schema_version_is_refused(tmp_path: Path, version: int) -> None:
    path = tmp_path / "results.sqlite"
    ResultsStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE store SET schema_version = ?", (version,))
    connection.close()
    with pytest.raises(StoreError, match=rf"must have schema version 1, not {version}.*written by another vsquant"):
        ResultsStore(path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"folder must be one that can be made.*give another path"):
        ResultsStore(tmp_path / "file" / "results.sqlite")


def test_a_path_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be used \(unable to open database file\).*give another path"):
        ResultsStore(tmp_path)


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "results.sqlite") as store:
        store._connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(StoreError, match=r"disk is full.*free some disk space"):
            store.put(KEY, INPUTS, record(20_000))
        assert len(store) == 0
        store.put(KEY, INPUTS, record(20))
        assert store.get(KEY) == record(20)


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("UPDATE cells SET record = ?", "{"),
        ("UPDATE cells SET record = ?", "{}"),
        ("UPDATE cells SET scores = ?", b"\x10\x00\x00\x00x"),
    ],
)
def test_a_damaged_row_is_refused(tmp_path: Path, statement: str, value: str | bytes) -> None:
    with ResultsStore(tmp_path / "results.sqlite") as store:
        store.put(KEY, INPUTS, record())
        store._connection.execute(statement, (value,))
        with pytest.raises(StoreError, match=rf"record {KEY[:12]}.*damaged.*delete or move it"):
            store.get(KEY)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from vsquant.results import CellRecord, Provenance, ResultsStore, Scores, content_key

store = ResultsStore(Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    scores = Scores(metric="F1", unit="%", higher_is_better=True, values=np.full(3000, float(number)),
                    groups=np.arange(3000), weights=np.ones(3000))
    record = CellRecord(task="t", spec=str(number), kind="vector", scale_mode="paper", gamma="static", scores=scores,
                        seconds=0.0, provenance=Provenance.here(vsquant="0", torch="0"))
    inputs = {"number": number}
    store.put(content_key(inputs), inputs, record)
    print(number, flush=True)
    number += 1
"""


def test_a_killed_writer_leaves_whole_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    finished = 0
    for kill in range(6):
        command = [sys.executable, "-c", WRITER, str(path), str(finished)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        assert writer.stdout is not None
        for _ in range(1 + 3 * kill):
            finished = int(writer.stdout.readline()) + 1
        writer.send_signal(signal.SIGKILL)
        finished = max([finished, *(int(line) + 1 for line in writer.stdout.read().split())])
        writer.wait()
        with ResultsStore(path) as store:
            assert len(store) >= finished
            for number in range(len(store)):
                cell = store.get(content_key({"number": number}))
                assert cell is not None and cell.spec == str(number) and cell.scores.value() == number
            finished = len(store)


def test_several_processes_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    starts = [1000 * index for index in range(4)]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(start)], stdout=subprocess.PIPE, text=True)
        for start in starts
    ]
    for writer, start in zip(writers, starts, strict=True):
        assert writer.stdout is not None
        assert writer.stdout.readline() == f"{start}\n"
        writer.kill()
        writer.wait()
        writer.stdout.close()
    with ResultsStore(path) as store:
        assert all(store.get(content_key({"number": start})) is not None for start in starts)

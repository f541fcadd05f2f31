"""Files outlive a wrong clock and a lost database."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jobs import open_client

from rankd.batches.clock import DAY, ClockGuard
from rankd.errors import BadSettings

pytestmark = pytest.mark.anyio


class Times:
    """A wall clock and a monotonic one, which pass together until the wall clock is moved."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_800_000_000.0, 5_000.0

    def sleep(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def guard(self, last_seen: int | None) -> ClockGuard:
        return ClockGuard(last_seen, wall=lambda: self.wall, monotonic=lambda: self.monotonic)


def test_time_that_passes_is_believed() -> None:
    times = Times()
    guard = times.guard(int(times.wall) - 3600)
    for _ in range(100):
        times.sleep(DAY)

        assert guard.allows_deletion()


@pytest.mark.parametrize("last_seen", [None, 0], ids=["an empty database", "now"])
def test_a_start_without_a_gap_is_believed(last_seen: int | None) -> None:
    times = Times()

    assert times.guard(None if last_seen is None else int(times.wall)).allows_deletion()


@pytest.mark.parametrize("running", [True, False])
def test_a_jump_forward_holds_deletions_back_for_a_day(
    running: bool, caplog: pytest.LogCaptureFixture
) -> None:
    times = Times()
    guard = times.guard(int(times.wall))
    if running:
        assert guard.allows_deletion()
    times.wall += 31 * DAY

    held = [guard.allows_deletion()]
    for _ in range(23):
        times.sleep(3600)
        held.append(guard.allows_deletion())
    times.sleep(3601)

    assert held == [False] * 24
    assert guard.allows_deletion()
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("the clock is 31.0 days ahead")


def test_a_clock_that_is_put_back_deletes_nothing() -> None:
    times = Times()
    guard = times.guard(int(times.wall))
    times.wall += 31 * DAY
    assert not guard.allows_deletion()
    times.wall -= 31 * DAY
    times.sleep(DAY + 1)

    assert guard.allows_deletion()


async def test_a_start_31_days_ahead_deletes_nothing_and_the_file_is_there_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client(tmp_path) as client:
        file = (await client.upload(b"{}")).json()["id"]
    real = time.time
    for _ in range(2):  # The second start does not take the wrong time for the newest.
        with monkeypatch.context() as ahead:
            ahead.setattr(time, "time", lambda: real() + 31 * DAY)
            async with open_client(tmp_path) as client:
                await client.app.state.batches.delete_expired()

    assert (tmp_path / "files" / file).exists()
    async with open_client(tmp_path) as client:
        assert (await client.get("/v1/files"))["data"][0]["id"] == file


async def test_expired_files_are_deleted_when_the_clock_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client(tmp_path) as client:
        file = (await client.upload(b"{}")).json()["id"]
        real, real_monotonic = time.time, time.monotonic
        monkeypatch.setattr(time, "time", lambda: real() + 31 * DAY)
        batches = client.app.state.batches
        batches.clock = ClockGuard(
            int(real()), wall=time.time, monotonic=lambda: real_monotonic() + 31 * DAY
        )
        batches.clock._seen = real(), real_monotonic()
        await batches.delete_expired()

        assert not (tmp_path / "files" / file).exists()


def empty(database: Path) -> None:
    database.write_bytes(b"")


def without_tables(database: Path) -> None:
    database.unlink()
    sqlite3.connect(database).execute("PRAGMA journal_mode = WAL").fetchall()


def missing(database: Path) -> None:
    database.unlink()


@pytest.mark.parametrize("lose", [empty, missing, without_tables])
async def test_a_new_database_beside_files_is_refused_and_nothing_is_deleted(
    lose: Callable[[Path], None], tmp_path: Path
) -> None:
    async with open_client(tmp_path) as client:
        file = (await client.upload(b"{}")).json()["id"]
    (backup := tmp_path / "backup.db").write_bytes((tmp_path / "batches.db").read_bytes())
    lose(tmp_path / "batches.db")

    for _ in range(2):
        with pytest.raises(BadSettings, match="has 1 files of batch jobs: restore the database"):
            async with open_client(tmp_path):
                pass
    assert (tmp_path / "files" / file).exists()

    backup.replace(tmp_path / "batches.db")
    for name in ("batches.db-wal", "batches.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    async with open_client(tmp_path) as client:
        assert (await client.get("/v1/files"))["data"][0]["id"] == file


async def test_a_new_database_beside_half_an_upload_is_a_start(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "file-half.part").write_bytes(b"half")
    async with open_client(tmp_path) as client:
        assert (await client.get("/v1/files"))["data"] == []
    assert not list((tmp_path / "files").iterdir())

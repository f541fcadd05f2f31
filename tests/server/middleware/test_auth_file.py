"""The key file: read at start, reloaded when it changes, kept when the new one is unusable."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from rankd.config.sources import load
from rankd.errors import BadSettings
from rankd.server.middleware import auth
from rankd.server.middleware.auth import KeyRing, hash_key, read_keys
from support.servers import run, serving

BODY = {"query": "q", "documents": ["d"]}
LONG = "a-key-that-cannot-be-guessed"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(
        f"# Who may ask.\n\nplain-key\n  search = named-key  \n{hash_key('secret')}\n"
        f"team@example.com = {hash_key('other')}\nYQ==\na b\n"
    )
    return file


@pytest.fixture
def without_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the file for changes on every call."""
    monkeypatch.setattr(auth, "_CHECK_INTERVAL", 0.0)


def test_a_line_is_a_key_or_a_digest_optionally_with_a_name(file: Path) -> None:
    ring = KeyRing((), file)

    owners = {key: ring.owner(key.encode()) for key in ("named-key", "other")}
    assert owners == {"named-key": "search", "other": "team@example.com"}
    for key in ("plain-key", "secret", "YQ==", "a b"):
        assert ring.owner(key.encode()) == hash_key(key)[7:19]  # Part of the digest, not the key.
    for unknown in ("", "# Who may ask.", "search", "search = named-key", hash_key("secret")):
        assert ring.owner(unknown.encode()) is None


@pytest.mark.usefixtures("without_interval")
def test_a_changed_file_is_reloaded(file: Path) -> None:
    ring = KeyRing(["fixed"], file)

    file.write_text("new-key\n")

    assert ring.owner(b"new-key") is not None
    assert ring.owner(b"plain-key") is None
    assert ring.owner(b"fixed") is not None


@pytest.mark.usefixtures("without_interval")
def test_a_replaced_file_is_reloaded(file: Path, tmp_path: Path) -> None:
    ring = KeyRing((), file)
    old = file.stat()
    other = tmp_path / "other"
    other.write_text("x" * old.st_size)
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))

    other.rename(file)  # As editors, Kubernetes and `mv` do.

    assert ring.owner(b"x" * old.st_size) is not None


@pytest.mark.usefixtures("without_interval")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.unlink(),
        lambda file: file.write_text(""),
        lambda file: file.write_text("# none\n"),
        lambda file: file.write_text("k3y\nsha256:12\n"),
        lambda file: file.write_bytes(b"k3y\n\xff\xfe\n"),
    ],
    ids=["missing", "empty", "only comments", "half a digest", "not text"],
)
def test_an_unusable_file_keeps_the_old_keys_and_is_logged_once(
    file: Path, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyRing((), file)

    spoil(file)

    with caplog.at_level(logging.ERROR):
        owners = [ring.owner(b"plain-key") for _ in range(3)]
    assert all(owners)
    assert ring.owner(b"k3y") is None
    assert len(caplog.records) == 1
    assert "keeping the previous API keys" in caplog.text
    assert "k3y" not in caplog.text
    file.write_text("mended\n")
    assert ring.owner(b"mended") is not None
    assert ring.owner(b"plain-key") is None


def test_the_file_is_checked_at_most_once_a_second(file: Path) -> None:
    ring = KeyRing((), file)

    file.write_text("new-key\n")

    assert ring.owner(b"plain-key") is not None  # Until the next check.
    assert ring.owner(b"new-key") is None


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "sha256:zz", "a = sha256:12"])
def test_an_unusable_file_at_start_is_an_error_without_its_keys(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)

    with pytest.raises(BadSettings) as refused:
        read_keys(file)
    assert str(file) in str(refused.value)
    assert "zz" not in str(refused.value)


def test_a_missing_file_is_an_error_at_start() -> None:
    ended = run("serve", "--engine", "fake", "--port", "0", "--api-keys-file", "/no/such/keys")

    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == (
        "rankd: cannot read --api-keys-file /no/such/keys: No such file or directory"
    )


def test_settings_accept_digests() -> None:
    settings = load({"api_keys": [hash_key(LONG)]}, {})

    assert KeyRing(settings.api_keys).owner(LONG.encode()) is not None
    with pytest.raises(BadSettings, match="64 hexadecimal digits") as refused:
        load({"api_keys": ["sha256:s3cret"]}, {})
    assert "s3cret" not in str(refused.value)


def test_settings_do_not_show_their_secrets() -> None:
    settings = load({"api_keys": ["s3cret"], "ssl_keyfile_password": "s3cret"}, {})

    assert "s3cret" not in repr(settings)


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbfplain-key\r\nb-key\r\n")

    assert KeyRing((), file).owner(b"plain-key") is not None


def test_a_key_that_is_not_utf8_is_one_error_line_without_the_key() -> None:
    flag = run("serve", "--engine", "fake", "--port", "0", "--api-key", os.fsdecode(b"\xffs3cret"))

    assert flag.returncode == 2
    assert flag.stderr == "rankd: api_keys: a key must be text in UTF-8\n"


def test_hash_key_prints_a_line_for_the_file(tmp_path: Path) -> None:
    ended = run("hash-key", stdin=f"{LONG}\n")
    file = tmp_path / "keys"
    file.write_text(ended.stdout)

    assert ended.returncode == 0
    assert ended.stderr == ""
    assert KeyRing((), file).owner(LONG.encode()) is not None


def test_hash_key_warns_of_a_short_key_and_refuses_an_empty_one() -> None:
    short, empty = run("hash-key", stdin="abc\n"), run("hash-key", stdin="\n")

    assert short.stdout.strip() == hash_key("abc")
    assert "can be guessed" in short.stderr
    assert empty.returncode == 2
    assert empty.stderr.startswith("rankd: no key was given")


def test_a_running_server_reloads_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("old-key\n")
    with serving("--engine", "fake", "--api-keys-file", str(file)) as server:

        def status(key: str) -> int:
            headers = {"Api-Key": key}
            return httpx.post(f"{server.url}/v1/rerank", json=BODY, headers=headers).status_code

        before = (status("old-key"), status("new-key"))
        file.write_text(f"{hash_key('new-key')}\n")
        time.sleep(1.2)
        after = (status("old-key"), status("new-key"))

    assert before == (200, 401)
    assert after == (401, 200)

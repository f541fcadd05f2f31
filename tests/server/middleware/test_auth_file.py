"""Keys in a file: read at start, read again when it changes, kept when the new one is broken."""

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
LONG = "a-key-of-which-nobody-knows"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(
        f"# Who may ask.\n\nplain-key\n  search = named-key  \n{hash_key('secret')}\n"
        f"team@example.com = {hash_key('other')}\nYQ==\na b\n"
    )
    return file


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the file with every request."""
    monkeypatch.setattr(auth, "_CHECK_INTERVAL", 0.0)


def test_a_line_is_a_key_or_its_digest_and_may_have_a_name(file: Path) -> None:
    ring = KeyRing((), file)

    owners = {key: ring.owner(key.encode()) for key in ("named-key", "other")}
    assert owners == {"named-key": "search", "other": "team@example.com"}
    for key in ("plain-key", "secret", "YQ==", "a b"):
        assert ring.owner(key.encode()) == hash_key(key)[7:19]  # Tells apart, opens nothing.
    for stranger in ("", "# Who may ask.", "search", "search = named-key", hash_key("secret")):
        assert ring.owner(stranger.encode()) is None


@pytest.mark.usefixtures("at_once")
def test_a_file_that_changes_is_read_again(file: Path) -> None:
    ring = KeyRing(["fixed"], file)

    file.write_text("new-key\n")

    assert ring.owner(b"new-key") is not None
    assert ring.owner(b"plain-key") is None
    assert ring.owner(b"fixed") is not None


@pytest.mark.usefixtures("at_once")
def test_a_file_put_in_the_place_of_another_is_read(file: Path, tmp_path: Path) -> None:
    ring = KeyRing((), file)
    old = file.stat()
    other = tmp_path / "other"
    other.write_text("x" * old.st_size)
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))

    other.rename(file)  # As editors, Kubernetes and `mv` do.

    assert ring.owner(b"x" * old.st_size) is not None


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.unlink(),
        lambda file: file.write_text(""),
        lambda file: file.write_text("# none\n"),
        lambda file: file.write_text("k3y\nsha256:12\n"),
        lambda file: file.write_bytes(b"k3y\n\xff\xfe\n"),
    ],
    ids=["gone", "empty", "only comments", "half a digest", "no text"],
)
def test_a_broken_file_keeps_the_old_keys_and_says_so_once(
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


def test_it_is_not_looked_at_with_every_request(file: Path) -> None:
    ring = KeyRing((), file)

    file.write_text("new-key\n")

    assert ring.owner(b"plain-key") is not None  # For up to a second.
    assert ring.owner(b"new-key") is None


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "sha256:zz", "a = sha256:12"])
def test_a_file_that_is_broken_at_start_is_a_sentence_without_its_keys(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "keys"
    file.write_text(text)

    with pytest.raises(BadSettings) as refused:
        read_keys(file)
    assert str(file) in str(refused.value)
    assert "zz" not in str(refused.value)


def test_a_missing_file_ends_the_start() -> None:
    ended = run("serve", "--engine", "fake", "--port", "0", "--api-keys-file", "/no/such/keys")

    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == (
        "rankd: cannot read --api-keys-file /no/such/keys: No such file or directory"
    )


def test_digests_are_keys_in_the_settings_too() -> None:
    settings = load({"api_keys": [hash_key(LONG)]}, {})

    assert KeyRing(settings.api_keys).owner(LONG.encode()) is not None
    with pytest.raises(BadSettings, match="64 hexadecimal digits") as refused:
        load({"api_keys": ["sha256:s3cret"]}, {})
    assert "s3cret" not in str(refused.value)


def test_settings_do_not_show_their_secrets() -> None:
    settings = load({"api_keys": ["s3cret"], "ssl_keyfile_password": "s3cret"}, {})

    assert "s3cret" not in repr(settings)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbfplain-key\r\nb-key\r\n")

    assert KeyRing((), file).owner(b"plain-key") is not None


def test_a_key_that_is_no_utf8_is_one_line_and_not_repeated() -> None:
    flag = run("serve", "--engine", "fake", "--port", "0", "--api-key", os.fsdecode(b"\xffs3cret"))

    assert flag.returncode == 2
    assert flag.stderr == "rankd: api_keys: a key must be text in UTF-8\n"


def test_hash_key_prints_what_a_file_takes(tmp_path: Path) -> None:
    ended = run("hash-key", stdin=f"{LONG}\n")
    file = tmp_path / "keys"
    file.write_text(ended.stdout)

    assert ended.returncode == 0
    assert ended.stderr == ""
    assert KeyRing((), file).owner(LONG.encode()) is not None


def test_hash_key_warns_of_a_key_that_can_be_guessed_and_refuses_none() -> None:
    short, none = run("hash-key", stdin="abc\n"), run("hash-key", stdin="\n")

    assert short.stdout.strip() == hash_key("abc")
    assert "can be guessed" in short.stderr
    assert none.returncode == 2
    assert none.stderr.startswith("rankd: no key was given")


def test_a_running_server_takes_a_new_key_without_a_restart(tmp_path: Path) -> None:
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

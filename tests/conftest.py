"""What many tests share: real tokenizers, a random checkpoint, a server without a model."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from rankd.config.settings import Settings
from rankd.models.checkpoint import BUILTIN, locate
from support.calling import calling
from support.checkpoints import make_checkpoint, qwen_tokenizer

# A machine that is busy with something else makes no test fail.
hypothesis_settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("patient")


def pytest_configure() -> None:
    # What a shell runs in the background ignores Ctrl-C, and so would all that tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos", "of make test-chaos")
    group.addoption("--chaos-seconds", type=float, default=120, help="How long it lasts (120).")
    group.addoption("--chaos-seed", default="1", help="Of all its dice (1).")
    group.addoption(
        "--chaos-without-redis",
        action="store_true",
        help="Leave Redis out; else it fails where there is no redis-server.",
    )
    deploy = parser.getgroup("deploy", "of make test-deploy")
    deploy.addoption(
        "--deploy-seconds", type=float, default=15, help="Of load on nginx and its servers (15)."
    )

    parser.getgroup("ray", "of make test-ray").addoption(
        "--ray-rounds", type=int, default=1, help="Repetitions of each kill (1)."
    )
    parser.getgroup("ui", "of make test-ui").addoption(
        "--screenshots", type=Path, help="A folder for pictures of the web page, docs/images."
    )


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests (`pytest.mark.anyio`) run on asyncio only, as the server does."""
    return "asyncio"


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real Qwen tokenizer."""
    folder = tmp_path_factory.mktemp("qwen")
    qwen_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def builtin() -> Path:
    """The folder of the model that ships with rankd."""
    return locate(BUILTIN).path


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of random weights with the real Qwen tokenizer."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "random")


@pytest.fixture(scope="session")
def client() -> Iterator[TestClient]:
    """The whole app on the fake engine, with limits small enough to pass.

    Without a cache: no test shall be answered by what another one asked.
    """
    settings = Settings(engine="fake", max_documents=20, max_body_bytes=100_000, cache_mb=0)
    with calling(settings) as client:
        yield client

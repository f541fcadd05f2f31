"""Connects to a Ray cluster, and keeps the list of a Serve application's replicas.

Serve's own handle would choose a replica, and would not say which one had a call that failed. So
the handle only keeps the list, and calls go to the replica's actor directly.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from rankd.engines.ray.replicas import Remote, ReplicaGone
from rankd.errors import SetupError

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle
    from ray.serve.request_router import RunningReplica

# Name of the deployment, in every application of rankd's.
DEPLOYMENT = "ScoringReplica"

# Seconds in which the cluster's head must accept a connection.
_CONNECT_SECONDS = 10

OnReplicas = Callable[[Mapping[str, tuple[Remote, Mapping[str, Any]]]], None]

# By application: who wants to know its replicas. A front has one.
_listeners: dict[str, OnReplicas] = {}


def on_replicas(app: str, replicas: Sequence[RunningReplica]) -> None:
    """Serve has changed the list of replicas; called in the loop that opened the connection."""
    if (listener := _listeners.get(app)) is not None:
        listener(
            {
                replica.replica_id.unique_id: (ServeReplica(app, replica), replica.replica_metadata)
                for replica in replicas
            }
        )


class ServeReplica:
    """Calls one replica of a Serve deployment."""

    def __init__(self, app: str, replica: RunningReplica) -> None:
        self._app = app
        self._replica = replica
        self._calls = 0

    async def call(self, method: str, *arguments: Any) -> Any:
        import ray
        from ray.exceptions import ActorDiedError, RayError, RayTaskError
        from ray.serve._private.common import RequestMetadata
        from ray.serve.request_router import PendingRequest

        self._calls += 1
        call_id = f"{self._replica.replica_id.unique_id}-{os.getpid()}-{self._calls}"
        metadata = RequestMetadata(
            request_id=call_id,
            internal_request_id=call_id,
            call_method=method,
            app_name=self._app,
            _on_separate_loop=False,
        )
        pending = PendingRequest(args=list(arguments), kwargs={}, metadata=metadata)
        reference = None
        try:
            result = self._replica.try_send_request(pending, with_rejection=False)
            reference = result.to_object_ref()
            return await reference
        except asyncio.CancelledError:
            if reference is not None:
                ray.cancel(reference)
            raise
        except RayTaskError:
            raise
        except RayError as problem:
            reason = str(problem).partition("\n")[0]
            raise ReplicaGone(reason, for_good=isinstance(problem, ActorDiedError)) from None


@asynccontextmanager
async def connected(address: str, app: str, listener: OnReplicas) -> AsyncIterator[None]:
    """A connection to the cluster, over which the application's replicas are learned.

    Args:
        address: `auto`, or HOST:PORT of the cluster's head.
        listener: called with all replicas whenever they change.

    Raises:
        SetupError: there is no such cluster, or it has no such application.
    """
    import ray

    is_ours = not ray.is_initialized()
    if is_ours:
        await asyncio.to_thread(connect, address)
    try:
        handle = await asyncio.to_thread(_handle, address, app)
        _listeners[app] = listener
        # In this loop: a thread and a queue between the two cost as much as the call.
        handle._init(_run_router_in_separate_loop=False)
        try:
            yield
        finally:
            del _listeners[app]
            await handle._router.shutdown()
    finally:
        if is_ours:
            await asyncio.to_thread(ray.shutdown)


def connect(address: str) -> None:
    """Join the cluster; blocks.

    Raises:
        SetupError: there is no such cluster, or no node of it on this machine.
    """
    # A server sends no reports of its use to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    try:
        _refuse_unreachable(address)
        ray.init(
            address=address,
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.WARNING,
        )
    except (OSError, RuntimeError, ValueError) as problem:
        raise SetupError(
            f"no Ray cluster at {address} ({_first_line(problem)}); a front needs a node of the "
            "cluster on its own machine: `ray start --address=HEAD:6379 --num-cpus=0`"
        ) from None


def _refuse_unreachable(address: str) -> None:
    """Raises OSError if nothing listens there, for which Ray would wait many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()


def _handle(address: str, app: str) -> DeploymentHandle[Any]:
    from ray import serve
    from ray.serve.exceptions import RayServeException
    from ray.serve.handle import DeploymentHandle

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        serve.get_deployment_handle(DEPLOYMENT, app)
    except (RayServeException, KeyError) as problem:
        raise SetupError(
            f"the Ray cluster at {address} has no application {app!r} "
            f"({_first_line(problem)}): start it with `rankd ray deploy MODEL`"
        ) from None
    # A new one: Serve keeps those that it gives out, and a handle belongs to one event loop.
    return DeploymentHandle(DEPLOYMENT, app)


def _first_line(problem: BaseException) -> str:
    return str(problem).strip().partition("\n")[0] or type(problem).__name__

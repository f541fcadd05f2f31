"""The request router of the deployment. Serve runs it in the front's process.

Serve pickles this module by value, so it has no state; `cluster` keeps that. Fronts choose the
replica themselves (`replicas.ReplicaSet.least_loaded`) and need only the list from it.
"""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from rankd.engines.ray import cluster


class ListingRouter(RequestRouter):  # type: ignore[misc]
    """Passes on the list of replicas whenever Serve changes it."""

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        cluster.on_replicas(self.app_name, replicas)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> Any:
        """Any of them, for callers that are no fronts."""
        return [candidate_replicas]

"""All routes of batch jobs: `/v1/files` and `/v1/batches`."""

from __future__ import annotations

from fastapi import APIRouter

from rankd.batches import file_routes, job_routes
from rankd.batches.file_routes import STREAMED_PATHS

__all__ = ["STREAMED_PATHS", "TAG", "router"]

TAG = {"name": "batches", "description": "OpenAI's Batch API; see --batch-dir."}

router = APIRouter(tags=[TAG["name"]])
router.include_router(file_routes.router)
router.include_router(job_routes.router)

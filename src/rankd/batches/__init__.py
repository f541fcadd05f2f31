"""OpenAI's Batch API: upload a file of requests, run it as a job, download a file of results.

- routes.py        all paths: file_routes.py (`/v1/files`), job_routes.py (`/v1/batches`)
- parameters.py    what both read from a request: owner, page size, path parameters
- schemas.py       JSON shapes of requests and responses
- upload.py        multipart/form-data, streamed to disk
- service.py       the directory, its lock and the deletion of expired files
- database.py      one SQLite file and its thread; queries.py holds the SQL
- records.py       rows: file, job, result of a line
- runner.py        runs jobs line by line; weighted_semaphore.py limits the lines in flight
- lines.py         reads and checks the input file, builds the rows of output files
- result_writer.py stores results; output_files.py writes the files of a finished job
"""

from rankd.batches.routes import STREAMED_PATHS, TAG, router
from rankd.batches.service import open_batches
from rankd.dialects.asgi_client import AsgiClient

__all__ = ["STREAMED_PATHS", "TAG", "AsgiClient", "open_batches", "router"]

"""What applications read from an answer, as strictly as their own code.

A reader gets the exchanges of one file of `wire/` and returns the score of each document as its
application reads it. It fails where the application would: where Go refuses `67.0` for an int,
where Java refuses `1` for a Double, where a schema requires a string. The file's `source` names
the code that the reader follows.
"""

from __future__ import annotations

# These modules register their readers.
from readers import applications as applications
from readers import databases as databases
from readers import dify as dify
from readers import java as java
from readers import ragflow as ragflow
from readers.base import ERROR_READERS, READERS, Exchange, Scores, query_and_documents

__all__ = ["ERROR_READERS", "READERS", "Exchange", "Scores", "query_and_documents"]

"""Vendors' newest published schemas, one file each, restated in the shapes of `base`.

To bring a dialect up to date: change its vendor's file to the new release, then the dialect until
`test_schema.py` passes.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from schema.base import Schema

SCHEMAS: list[Schema] = [
    import_module(f"schema.{module.name}").SCHEMA
    for module in iter_modules(__path__)
    if module.name != "base"
]

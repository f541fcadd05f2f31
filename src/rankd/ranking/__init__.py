"""From a query and its documents to scored documents: cache, limits, scheduling."""

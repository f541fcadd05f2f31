"""Ranking: from a query and its documents to scored documents."""

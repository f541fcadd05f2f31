"""Offline scoring: `rankd score` scores files, in this process or on a Ray cluster.

No server imports this package.
"""

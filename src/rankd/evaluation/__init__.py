"""Evaluation: `rankd eval` (judged rankings) and `rankd calibrate` (judged pairs).

Both score with a local engine or ask a running server. No server imports this package.
"""

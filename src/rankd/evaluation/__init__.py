"""How good is a set-up? `rankd eval` on judged rankings, `rankd calibrate` on judged pairs.

Both score with the local engine, or ask a running server. Nothing here is imported by one.
"""

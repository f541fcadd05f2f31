"""A/B tests: which callers get variant B. The same caller always gets the same variant."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rankd.config.experiments import Experiment
from rankd.telemetry import metrics

VARIANT_HEADER = "x-rankd-variant"


@dataclass(frozen=True, slots=True)
class Variant:
    """What the A/B tests decide for one caller.

    Attributes:
        preset, alias: of the test whose variant B the caller gets; None: of no test.
        header: `x-rankd-variant`, such as `short=A, code=B`; empty if the caller is in no test.
    """

    preset: str | None = None
    alias: str | None = None
    header: Mapping[str, str] = field(default_factory=dict)


class Experiments:
    """The A/B tests of a server, in the order of the configuration.

    Attributes:
        tables: the tests.
    """

    def __init__(self, tables: Sequence[Experiment] = ()) -> None:
        self.tables = tables
        for table in tables:
            for letter in "AB":
                metrics.VARIANTS.labels(table.name, letter)

    def variant_for(self, caller: str, user: str) -> Variant:
        """The variant of one caller: B of the first test that draws it, if one does.

        Later tests leave out callers that an earlier one has drawn, so that only one thing
        changes for each. A test by key leaves out requests without a key, and a test by user
        those without `user`.
        """
        taken = []
        for table in self.tables:
            identity = (caller, user) if table.by == "user" else (caller,)
            if not identity[-1]:
                continue
            is_b = drawn(table, identity)
            taken.append(f"{table.name}={'B' if is_b else 'A'}")
            metrics.VARIANTS.labels(table.name, "B" if is_b else "A").inc()
            if is_b:
                return Variant(table.preset, table.alias, {VARIANT_HEADER: ", ".join(taken)})
        return Variant(header={VARIANT_HEADER: ", ".join(taken)} if taken else {})


def drawn(table: Experiment, identity: Sequence[str]) -> bool:
    """Whether a caller gets variant B: a hash of test and caller is below the share.

    A larger share keeps the callers of a smaller one.
    """
    text = "\0".join((table.name, *identity))
    # Text of a client may hold half a surrogate pair.
    number = int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:8])
    return number < table.share * 2**64

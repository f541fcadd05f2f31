"""By what a request is judged where it does not say: presets, aliases, keys, calibrations."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from rankd.config.settings import Settings
from rankd.config.suggest import nearest
from rankd.config.tables import CUSTOM, DEFAULT, Alias, Calibration, Platt
from rankd.errors import InvalidRequest
from rankd.types import ScoredDocument, sigmoid


@dataclass(frozen=True, slots=True)
class Profile:
    """By what one request is judged.

    Attributes:
        preset: the name of its instruction; `default` is the server's, `custom` a text of
            the request's own.
        instruction: its text; None is the server's.
        threshold: scores below it are left out, by configuration; None leaves out nothing.
        platt: makes a probability of a logit; None where nothing was measured.
        alias: what the name says that the request calls the model by; None is its own name.
    """

    preset: str = DEFAULT
    instruction: str | None = None
    threshold: float | None = None
    platt: Platt | None = None
    alias: Alias | None = None

    @property
    def header(self) -> dict[str, str]:
        """Which instruction it was, a dictionary of RFC 9651; nothing for the server's own, which
        is in the hash of its template."""
        if self.preset == DEFAULT or self.instruction is None:
            return {}
        digest = hashlib.sha256(self.instruction.encode()).hexdigest()[:12]
        return {"x-rankd-instruction": f'preset="{self.preset}", digest="{digest}"'}

    def normalized(self, result: ScoredDocument) -> float | None:
        """How probable it is that the document is relevant, in [0, 1]; None if nobody knows."""
        if self.platt is None:
            return None
        return sigmoid(self.platt.slope * result.logit + self.platt.intercept)


class Profiles:
    """What a server's configuration says of its presets, aliases and keys.

    Attributes:
        aliases: further names of the model, in the order of the configuration.
        presets: names that a request may choose from; the first is the server's own.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self.aliases: Sequence[str] = tuple(settings.aliases)
        self.presets: Sequence[str] = (DEFAULT, *settings.instructions)
        self._texts = {DEFAULT: None, **settings.instructions}
        # What was measured with a text holds whoever sends it. Of two names of one text the
        # first counts.
        self._names = {text: name for name, text in reversed(settings.instructions.items())}
        self._names[settings.instruction] = DEFAULT
        self._calibration = settings.calibration
        self._aliases = settings.aliases
        self._keys = settings.key_presets

    def choose(
        self,
        *,
        text: str | None = None,
        preset: str | None = None,
        model: str | None = None,
        caller: str = "",
    ) -> Profile:
        """The request's text, else its preset, else that of its model's name, of its key, or none.

        Raises:
            InvalidRequest: there is no such preset; lists those there are.
        """
        if preset and preset not in self._texts:
            raise InvalidRequest(self._unknown(preset), param="preset")
        alias = self._aliases.get(model or "")
        if text:
            name = self._names.get(text, CUSTOM)
        else:
            name = preset or (alias and alias.preset) or self._keys.get(caller) or DEFAULT
            text = self._texts[name]
        measured = self._calibration.get(name, Calibration())
        threshold = measured.threshold
        if alias and alias.score_threshold is not None:
            threshold = alias.score_threshold
        return Profile(name, text, threshold, measured.platt, alias)

    def _unknown(self, preset: str) -> str:
        hint = nearest(preset, self.presets)
        known = ", ".join(self.presets)
        if known == DEFAULT:
            return f"preset {preset[:80]!r} is not known{hint}; this server has only {known!r}"
        return f"preset {preset[:80]!r} is not known{hint}; there are {known}"

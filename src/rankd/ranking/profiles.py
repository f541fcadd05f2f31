"""What a request is judged by: instruction, threshold, calibration, from presets and aliases."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rankd.config.settings import Settings
from rankd.config.suggest import nearest
from rankd.config.tables import CUSTOM, DEFAULT, Alias, Calibration, Platt
from rankd.errors import BadSettings, InvalidRequest
from rankd.ranking.experiments import Experiments
from rankd.types import RankRequest, ScoredDocument, TruncationPolicy, sigmoid


@dataclass(frozen=True, slots=True)
class Profile:
    """What one request is judged by.

    Attributes:
        preset: name of the instruction; `default` is the server's own, `custom` a text of
            the request that no preset has.
        instruction: its text; None is the server's own.
        threshold: the configured score threshold, 0 to 1: documents with lower scores are
            left out; None leaves none out.
        platt: turns a logit into a probability; None without a calibration.
        alias: configuration of the model name in the request; None if that is no alias.
        header: `x-rankd-instruction`, a dictionary of RFC 9651 with preset and digest of the
            text; not for the server's own instruction, which the template's hash covers. And
            `x-rankd-variant`, if the caller takes part in an A/B test.
    """

    preset: str = DEFAULT
    instruction: str | None = None
    threshold: float | None = None
    platt: Platt | None = None
    alias: Alias | None = None
    header: Mapping[str, str] = field(default_factory=dict)

    def truncation_over(
        self,
        policy: TruncationPolicy,
        *,
        keeps_size: bool = False,
        keeps_truncation: bool = False,
    ) -> TruncationPolicy:
        """A request's policy for documents that do not fit, with the alias's in its place.

        Args:
            keeps_size: the request says from which size on documents do not fit.
            keeps_truncation: it says what is done with those.
        """
        alias = self.alias
        if alias is None:
            return policy
        if alias.max_tokens_per_doc and not keeps_size:
            policy = replace(policy, tokens=alias.max_tokens_per_doc)
        if alias.truncation_policy is None or keeps_truncation:
            return policy
        return TruncationPolicy(
            tokens=policy.tokens,
            truncation=alias.truncation_policy,
            chunks=alias.max_chunks_per_doc,
            overlap=alias.overlap_tokens,
            side=alias.truncation_side,
        )

    def request(
        self,
        query: str,
        documents: tuple[str, ...] = (),
        policy: TruncationPolicy = TruncationPolicy(),  # noqa: B008  # It is immutable.
    ) -> RankRequest:
        """A request that no client sent; a command adds its documents later.

        Args:
            policy: for documents that do not fit; that of the alias is put over it.
        """
        policy = self.truncation_over(policy)
        return RankRequest(
            query,
            documents,
            instruction=self.instruction,
            max_document_tokens=policy.tokens,
            truncation=policy.truncation,
            max_chunks=policy.chunks,
            overlap=policy.overlap,
            side=policy.side,
        )

    def normalized(self, result: ScoredDocument) -> float | None:
        """Probability that the document is relevant, in [0, 1]; None without a calibration."""
        if self.platt is None:
            return None
        return sigmoid(self.platt.slope * result.logit + self.platt.intercept)


class Profiles:
    """The presets, aliases, key presets and calibrations in a server's configuration.

    Attributes:
        aliases: further names of the model, in the order of the configuration.
        presets: names that a request may choose from; the first is the server's own.
    """

    def __init__(self, settings: Settings | None = None, measured: Platt | None = None) -> None:
        """Read the settings.

        Args:
            measured: Platt scaling that ships for the model and the server's instruction; a
                configured one replaces it.
        """
        settings = settings or Settings()
        self.aliases: Sequence[str] = tuple(settings.aliases)
        self.presets: Sequence[str] = (DEFAULT, *settings.instructions)
        self._texts = {DEFAULT: None, **settings.instructions}
        # A calibration applies to an instruction's text, also when the request sends the text
        # itself. If two presets have the same text, the first one's calibration applies.
        self._names = {text: name for name, text in reversed(settings.instructions.items())}
        self._names[settings.instruction] = DEFAULT
        self._calibration = dict(settings.calibration)
        own = self._calibration.get(DEFAULT, Calibration())
        if own.platt is None and measured is not None:
            self._calibration[DEFAULT] = own.model_copy(update={"platt": measured})
        self._aliases = settings.aliases
        self._experiments = Experiments(settings.ab)
        self._keys = settings.key_presets

    def choose(
        self,
        *,
        text: str | None = None,
        preset: str | None = None,
        model: str | None = None,
        caller: str = "",
        user: str = "",
    ) -> Profile:
        """The first of: the request's text, its preset, its alias's preset, its key's, default.

        A request that names none of the first three may get a variant of an A/B test.

        Args:
            text: the instruction in the request.
            preset: the name of a preset in the request.
            model: the model name in the request.
            caller: the name of its API key.
            user: its end user.

        Raises:
            InvalidRequest: the preset is unknown; the message lists the known ones.
        """
        if preset and preset not in self._texts:
            raise InvalidRequest(self._unknown(preset), param="preset")
        alias = self._aliases.get(model or "")
        variants: Mapping[str, str] = {}
        if self._experiments.tables and not (text or preset or alias):
            variant = self._experiments.variant_for(caller, user)
            preset, variants = variant.preset, variant.header
            alias = self._aliases.get(variant.alias or "")
        if text:
            name = self._names.get(text, CUSTOM)
        else:
            name = preset or (alias and alias.preset) or self._keys.get(caller) or DEFAULT
            text = self._texts[name]
        calibration = self._calibration.get(name, Calibration())
        threshold = calibration.threshold
        if alias and alias.score_threshold is not None:
            threshold = alias.score_threshold
        header = {} if name == DEFAULT or text is None else _instruction_header(name, text)
        header = {**header, **variants}
        return Profile(name, text, threshold, calibration.platt, alias, header)

    def _unknown(self, preset: str) -> str:
        hint = nearest(preset, self.presets)
        names = ", ".join(self.presets)
        if names == DEFAULT:
            return f"preset {preset[:80]!r} is not known{hint}; this server has only {names!r}"
        return f"preset {preset[:80]!r} is not known{hint}; this server has {names}"


def check_names(settings: Settings, preset: str | None, alias: str | None) -> None:
    """Check the names in a command's `--preset` and `--alias`.

    Raises:
        BadSettings: there is no such preset or alias; names the nearest.
    """
    if preset is not None:
        settings.instruction_named(preset)
    if alias is not None and alias not in settings.aliases:
        hint = nearest(alias, settings.aliases)
        raise BadSettings(f"--alias {alias!r} is not in [aliases]{hint}")


def _instruction_header(preset: str, text: str) -> dict[str, str]:
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return {"x-rankd-instruction": f'preset="{preset}", digest="{digest}"'}

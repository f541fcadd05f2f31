"""`rankd calibrate`: judged pairs in, thresholds and what scores are worth out."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from tqdm import tqdm

from rankd import __version__
from rankd.config.settings import Settings
from rankd.errors import BadSettings
from rankd.evaluation import calibration
from rankd.evaluation.calibration import PlattFit, Reliability, Threshold
from rankd.evaluation.judgments import JudgedGroup, read_pairs
from rankd.evaluation.options import CalibrateOptions
from rankd.evaluation.scorers import Scorer, ScorerOptions, open_scorer
from rankd.types import sigmoid


@dataclass(frozen=True)
class Calibrated:
    """What was found for one instruction.

    Attributes:
        threshold: None where none keeps the wanted precision.
        held_out: what thresholds do to queries they were chosen without; None where there
            are too few.
        raw: of the scores as they are.
        scaled: of Platt's probabilities, each by a fit without its own query; None where
            it was not asked for, or queries are too few.
        separated: no score lies on the wrong side.
    """

    group: JudgedGroup
    logits: Sequence[float]
    threshold: Threshold | None
    held_out: Threshold | None
    auc: float
    raw: Reliability
    platt: PlattFit | None
    scaled: Reliability | None
    separated: bool

    @property
    def platt_is_usable(self) -> bool:
        """A slope that is not above 0 says that scores rank the wrong way round."""
        return self.platt is not None and self.platt.slope > 0


async def calibrate(settings: Settings, options: CalibrateOptions) -> int:
    """Score, choose, report; returns 1 when a wanted precision cannot be had.

    Raises:
        SetupError: what is missing or wrong, with file and line.
    """
    if options.picture:
        _refuse_without_matplotlib()
    given = settings.model_fields_set
    side = ScorerOptions(
        settings,
        options.url,
        settings.instruction if "instruction" in given else None,
        settings.model if options.url and "model" in given else None,
    )
    own = None if options.url and side.instruction is None else settings.instruction
    groups = await asyncio.to_thread(
        read_pairs, options.file, settings, own=own, least=options.relevant_from
    )
    async with open_scorer(side) as scorer:
        about = scorer.about
        logits = await _score(scorer, groups, options.concurrency)
    found = [_calibrated(*one, options) for one in zip(groups, logits, strict=True)]
    _report(about, found, options, own)
    return 0 if all(one.threshold for one in found) else 1


def _refuse_without_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise BadSettings("--picture needs matplotlib: pip install 'rankd[eval]'") from None


async def _score(
    scorer: Scorer, groups: Sequence[JudgedGroup], concurrency: int
) -> list[list[float]]:
    """The logits of every group's pairs; the documents of a query are scored together."""
    logits = [[0.0] * len(group.pairs) for group in groups]
    jobs: dict[tuple[int, str], list[int]] = {}
    for number, group in enumerate(groups):
        for place, pair in enumerate(group.pairs):
            jobs.setdefault((number, pair.query), []).append(place)
    waiting = iter(jobs.items())
    total = sum(len(group.pairs) for group in groups)
    warned = 0
    with tqdm(total=total, unit="pair", disable=not sys.stderr.isatty()) as bar:

        async def work() -> None:
            nonlocal warned
            for (number, query), places in waiting:
                group = groups[number]
                documents = [group.pairs[place].document for place in places]
                scored = await scorer.score(query, documents, group.instruction)
                for place, logit in zip(places, scored.logits, strict=True):
                    logits[number][place] = logit
                warned += scored.warning is not None
                bar.update(len(places))

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(concurrency):
                    tasks.create_task(work())
        except ExceptionGroup as problems:
            raise problems.exceptions[0] from None
    if warned:
        print(f"rankd: documents of {warned} queries were cut", file=sys.stderr)  # noqa: T201
    return logits


def _calibrated(
    group: JudgedGroup, logits: Sequence[float], options: CalibrateOptions
) -> Calibrated:
    relevant, bins = group.relevant, options.bins
    choose = calibration.keeping(options.precision) if options.precision else calibration.best_f1
    threshold = choose(logits, relevant)
    parts = calibration.folds([pair.query for pair in group.pairs], relevant)
    scaled = None
    if options.platt and parts:
        probabilities = calibration.held_out_platt(logits, relevant, parts)
        scaled = calibration.reliability(probabilities, relevant, bins)
    return Calibrated(
        group,
        logits,
        threshold,
        calibration.held_out_threshold(choose, logits, relevant, parts) if parts else None,
        calibration.auc(logits, relevant),
        calibration.reliability([sigmoid(logit) for logit in logits], relevant, bins),
        calibration.fit_platt(logits, relevant) if options.platt else None,
        scaled,
        calibration.is_separated(logits, relevant),
    )


def _report(
    about: Mapping[str, Any],
    found: Sequence[Calibrated],
    options: CalibrateOptions,
    own: str | None,
) -> None:
    settings = toml(about, found, own)
    _say("\n".join([_heading(about, found), "", *_table(found), *_remarks(found, options)]))
    if options.json:
        _write(options.json, _json(about, found, options))
    if options.picture:
        from rankd.evaluation.plot import draw

        try:
            draw(options.picture, found)
        except OSError as problem:
            raise _unwritable(options.picture, problem) from None
        _say(f"\npicture: {options.picture}")
    if options.write:
        _write(options.write, settings.encode())
        _say(f"\nsettings: {options.write}, for `rankd serve --config {options.write}`")
    else:
        _say(f"\n{settings}")


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as problem:
        raise _unwritable(file, problem) from None


def _unwritable(file: Path, problem: OSError) -> BadSettings:
    return BadSettings(f"cannot write {file}: {problem.strerror}")


def _say(text: str) -> None:
    print(text)  # noqa: T201


def _heading(about: Mapping[str, Any], found: Sequence[Calibrated]) -> str:
    place = about.get("url") or f"{about['engine']} on {about['device']}, {about['dtype']}"
    pairs = sum(len(one.group.pairs) for one in found)
    return f"{about['model'] or 'unnamed'} ({place}): {pairs:,} judged pairs"


def _table(found: Sequence[Calibrated]) -> list[str]:
    width = max(11, *(len(one.group.name) for one in found))
    lines = [
        f"{'instruction':<{width}}  pairs  relevant  threshold  precision  recall     F1  "
        "held-out F1    AUC  Brier    ECE"
    ]
    for one in found:
        cut, held = one.threshold, one.held_out
        chosen = (
            f"{cut.value:>9.7g}  {cut.precision:>9.3f}  {cut.recall:>6.3f}  {cut.f1:>5.3f}"
            if cut
            else f"{'none':>9}  {'-':>9}  {'-':>6}  {'-':>5}"
        )
        lines.append(
            f"{one.group.name:<{width}}  {len(one.group.pairs):>5}  {sum(one.group.relevant):>8}  "
            f"{chosen}  {f'{held.f1:.3f}' if held else '-':>11}  {one.auc:>5.3f}  "
            f"{one.raw.brier:>5.3f}  {one.raw.ece:>5.3f}"
        )
    if any(one.platt for one in found):
        lines += ["", *_platt_table(found, width)]
    return lines


def _platt_table(found: Sequence[Calibrated], width: int) -> list[str]:
    lines = [
        f"{'Platt':<{width}}    slope  intercept  Brier raw  held out  ECE raw  held out",
    ]
    for one in found:
        if one.platt is None:
            continue
        brier = f"{one.scaled.brier:.3f}" if one.scaled else "-"
        ece = f"{one.scaled.ece:.3f}" if one.scaled else "-"
        lines.append(
            f"{one.group.name:<{width}}  {one.platt.slope:>7.3f}  {one.platt.intercept:>9.3f}  "
            f"{one.raw.brier:>9.3f}  {brier:>8}  {one.raw.ece:>7.3f}  {ece:>8}"
        )
    return lines


def _remarks(found: Sequence[Calibrated], options: CalibrateOptions) -> list[str]:
    """What the figures rest on, and what is wrong with them."""
    wanted = (
        f"the most recall of a precision of at least {options.precision:g}"
        if options.precision
        else "the best F1"
    )
    lines = [
        "",
        f"Thresholds: {wanted} on these pairs. ECE: {options.bins} bins of equal width. "
        f"Held out: {calibration.FOLDS} parts, each judged",
        "by what the others say; the pairs of a query stay together.",
    ]
    for one in found:
        name = one.group.name
        if one.threshold is None:
            best = calibration.best_f1(one.logits, one.group.relevant)
            lines.append(
                f"{name}: no threshold keeps a precision of {options.precision:g}; "
                f"the best F1, {best.f1:.3f}, is at {best.value:.7g} with {best.precision:.3f}"
            )
        if one.held_out is None:
            lines.append(f"{name}: too few queries or too few precise ones to hold some out")
        if one.separated:
            extra = "; Platt's slope rests on its smoothing alone" if one.platt else ""
            lines.append(f"{name}: no score lies on the wrong side{extra}: judge harder pairs")
        if one.platt and not one.platt_is_usable:
            lines.append(f"{name}: scores rank the wrong way round; Platt scaling is not written")
        elif one.scaled and one.scaled.brier >= one.raw.brier:
            lines.append(f"{name}: Platt scaling did not help with queries it had not seen")
    return lines


def toml(about: Mapping[str, Any], found: Sequence[Calibrated], own: str | None) -> str:
    """The settings of all instructions, as `rankd serve --config` reads them.

    Args:
        own: the text of the server's own instruction; None when nobody here knows it.
    """
    lines = [f"# Written by rankd {__version__} calibrate."]
    if "url" in about:
        lines.append(
            f"# Measured at {about['url']}, which calls its model {about['model']!r}: what model "
            "it is, this file cannot check."
        )
    if new := [one.group for one in found if one.group.is_new and _is_set(one)]:
        lines += ["", "# Texts that had no name: put names of your own in both places."]
        lines += ["[instructions]"]
        lines += [f"{_text(group.name)} = {_text(group.instruction or '')}" for group in new]
    for one in found:
        lines += ["", *_toml_of(one, about, own)]
    return "\n".join([*lines, ""])


def _is_set(one: Calibrated) -> bool:
    """Whether anything was found that can be set."""
    return one.threshold is not None or one.platt_is_usable


def _toml_of(one: Calibrated, about: Mapping[str, Any], own: str | None) -> list[str]:
    group, cut = one.group, one.threshold
    figures = (
        f"F1 {cut.f1:.3f}, precision {cut.precision:.3f}, recall {cut.recall:.3f}, " if cut else ""
    )
    comment = (
        f"# {len(group.pairs)} judged pairs, {sum(group.relevant)} relevant: {figures}"
        f"Brier {one.raw.brier:.3f}, ECE {one.raw.ece:.3f}"
    )
    if not _is_set(one):
        return [comment, f"# No setting for {_text(group.name)} reaches what was asked for."]
    lines = [comment]
    instruction = own if group.instruction is None else group.instruction
    lines.append(f"[calibration.{_text(group.name)}]")
    if cut is not None:
        lines.append(f"threshold = {cut.value!r}")
    if one.platt is not None and one.platt_is_usable:
        slope, intercept = (float(f"{number:.6g}") for number in one.platt)
        lines.append(f"platt = {{ slope = {slope!r}, intercept = {intercept!r} }}")
    if "url" not in about:
        lines.append(f"model = {_text(about['model'])}")
    if instruction is not None:
        lines.append(f"instruction = {_text(instruction)}")
    return lines


def _text(value: str) -> str:
    """A string of JSON is one of TOML, but for one character."""
    return orjson.dumps(value).decode().replace("\x7f", "\\u007f")


def _json(
    about: Mapping[str, Any], found: Sequence[Calibrated], options: CalibrateOptions
) -> bytes:
    content = {
        "rankd": __version__,
        "about": about,
        "precision": options.precision,
        "relevant_from": options.relevant_from,
        "folds": calibration.FOLDS,
        "instructions": [
            {
                "name": one.group.name,
                "instruction": one.group.instruction,
                "pairs": len(one.group.pairs),
                "relevant": sum(one.group.relevant),
                "queries": len({pair.query for pair in one.group.pairs}),
                "threshold": one.threshold and one.threshold._asdict(),
                "held_out": one.held_out and one.held_out._asdict(),
                "auc": one.auc,
                "reliability": asdict(one.raw),
                "platt": one.platt and one.platt._asdict(),
                "platt_held_out": one.scaled and asdict(one.scaled),
                "separated": one.separated,
            }
            for one in found
        ],
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)

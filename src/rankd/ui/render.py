"""Answers as HTML. Every text goes through `escaped`: nothing a user wrote is markup."""

from __future__ import annotations

import html
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankd.ui.asgi_client import Refused, RerankAnswer
from rankd.ui.documents import Document
from rankd.ui.snippets import Shown

# Gradio reads templates in what it shows: JavaScript's, Handlebars', and a word of its own.
_TEMPLATES = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "@": "&#64;", "`": "&#96;"})

# Results that are drawn, characters of each, and characters of a snippet: a page of more is slow.
_MOST_ROWS = 200
_MOST_TEXT = 2000
_MOST_CODE = 50_000

_BINS = 20


def escaped(text: object) -> str:
    """A text that a browser shows as it is."""
    return html.escape(str(text)).translate(_TEMPLATES)


@dataclass(frozen=True, slots=True)
class Column:
    """One ranking as it is drawn.

    Attributes:
        before: for each document its place, from 0, in what it is compared with.
        origin: what that is called.
    """

    answer: RerankAnswer
    documents: Sequence[Document]
    before: Mapping[int, int]
    origin: str

    @classmethod
    def of(cls, answer: RerankAnswer, documents: Sequence[Document]) -> Column:
        """Compared with the order of the input."""
        return cls(answer, documents, {n: n for n in range(len(documents))}, "in the input")


def head(name: str, facts: Sequence[str]) -> str:
    """The line at the top: what is served."""
    said = "".join(f"<span>{escaped(fact)}</span>" for fact in facts)
    return f'<div class="rk-served"><b>{escaped(name)}</b>{said}</div>'


def hint(text: str) -> str:
    return f'<p class="rk-hint">{escaped(text)}</p>'


def error(problem: Refused) -> str:
    """A sentence, and by what the log knows it."""
    known = f" · {escaped(problem.request_id)}" if problem.request_id else ""
    sentence = problem.sentence[:1].upper() + problem.sentence[1:]
    return (
        f'<div class="rk-error" role="alert"><p>{escaped(sentence)}.</p>'
        f"<small>{problem.status}{known}</small></div>"
    )


def ranking(column: Column) -> str:
    """Best first, each with its score, its way through the list and what was read of it."""
    answer = column.answer
    rows = "".join(
        _row(column, place, result) for place, result in enumerate(answer.results[:_MOST_ROWS])
    )
    more = len(answer.results) - _MOST_ROWS
    rest = hint(f"and {more:,} more, which are not drawn") if more > 0 else ""
    warnings = "".join(f'<p class="rk-warning">{escaped(said)}</p>' for said in answer.warnings)
    return f'{_summary(answer)}{warnings}<ol class="rk-list">{rows}</ol>{rest}'


def _summary(answer: RerankAnswer) -> str:
    facts = [
        f"<b>{answer.milliseconds:,.0f} ms</b>",
        f"{len(answer.results):,} documents",
        f"{answer.tokens:,} tokens",
    ]
    if answer.cached:
        facts.append(f"{len(answer.cached):,} from the cache")
    facts.append(f'<span class="rk-id" title="request id">{escaped(answer.request_id)}</span>')
    return f'<p class="rk-summary">{" · ".join(facts)}</p>'


def _row(column: Column, place: int, result: Mapping[str, Any]) -> str:
    index, score = result["index"], result["relevance_score"]
    before = column.before.get(index, place)
    tags = [f"<span>#{before + 1} {escaped(column.origin)}</span>"]
    if "tokens" in result:
        tags.append(f"<span>{result['tokens']:,} tokens</span>")
    if "normalized_score" in result:
        tags.append(f"<span>{result['normalized_score']:.1%} probable</span>")
    if result.get("truncated"):
        tags.append('<span class="rk-cut">truncated</span>')
    if result.get("chunk", {}).get("of", 1) > 1:
        tags.append(f"<span>best of {result['chunk']['of']} chunks</span>")
    if index in column.answer.cached:
        tags.append('<span class="rk-cached">cached</span>')
    return (
        f'<li><div class="rk-place"><b>{place + 1}</b>{_move(before - place)}</div><div>'
        f'<div class="rk-scored"><div class="rk-bar"><i style="width:{score * 100:.2f}%"></i></div>'
        f'<output title="{score!r}">{score:.4f}</output></div>'
        f'<p class="rk-text">{_text(column.documents[index])}</p>'
        f'<p class="rk-tags">{"".join(tags)}</p></div></li>'
    )


def _move(up: int) -> str:
    if up == 0:
        return '<span class="rk-same" title="same place">=</span>'
    way, arrow = ("up", "▲") if up > 0 else ("down", "▼")
    places = "place" if abs(up) == 1 else "places"
    return f'<span class="rk-{way}" title="{abs(up)} {places} {way}">{arrow}{abs(up)}</span>'


def _text(document: Document) -> str:
    if isinstance(document, dict):
        text = document.get("text")
        if not isinstance(text, str):
            text = "\n".join(f"{name}: {value}" for name, value in document.items())
    else:
        text = document
    return escaped(text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + " …")


def comparison(first: Column, second: Column, names: tuple[str, str]) -> str:
    """Two rankings of the same documents side by side; the second says how it moved."""
    orders = [[result["index"] for result in one.answer.results] for one in (first, second)]
    moved = sum(one != other for one, other in zip(*orders, strict=False))
    same_best = orders[0][:1] == orders[1][:1]
    said = (
        f"{moved:,} of {len(first.documents):,} places differ; "
        f"the best document is {'the same' if same_best else 'another'}."
    )
    sides = "".join(
        f"<section><h3><span>{letter}</span>{escaped(name)}</h3>{ranking(column)}</section>"
        for letter, name, column in zip("AB", names, (first, second), strict=True)
    )
    return f'<p class="rk-verdict">{said}</p><div class="rk-sides">{sides}</div>'


def distribution(answer: RerankAnswer) -> str:
    """A histogram of the scores, each score below it, and where the widest gap is."""
    scores = sorted((float(result["relevance_score"]) for result in answer.results), reverse=True)
    if not scores:
        return hint("no document has a score")
    counts = [0] * _BINS
    for score in scores:
        counts[min(_BINS - 1, int(score * _BINS))] += 1
    facts = [
        ("best", f"{scores[0]:.4f}"),
        ("median", f"{statistics.median(scores):.4f}"),
        ("worst", f"{scores[-1]:.4f}"),
        ("at 0.5 or more", f"{sum(score >= 0.5 for score in scores):,} of {len(scores):,}"),
    ]
    if len(scores) > 1:
        gap, above = max((scores[n] - scores[n + 1], n) for n in range(len(scores) - 1))
        facts.append(("widest gap", f"{gap:.4f} after place {above + 1:,}"))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'{_histogram(counts, scores)}<dl class="rk-facts">{cells}</dl>'


def _histogram(counts: Sequence[int], scores: Sequence[float]) -> str:
    """An SVG of 600 by 260 units, in the colours of the page."""
    left, top, width, height, most = 30, 20, 560, 170, max(counts)
    step = width / len(counts)
    bars = []
    for place, count in enumerate(counts):
        if not count:
            continue
        tall = height * count / most
        x, y = left + place * step + 2, top + height - tall
        bars.append(
            f'<rect class="rk-bin" x="{x:.1f}" y="{y:.1f}" width="{step - 4:.1f}" '
            f'height="{tall:.1f}" rx="2"><title>{count:,} between {place / len(counts):.2f} and '
            f"{(place + 1) / len(counts):.2f}</title></rect>"
            f'<text x="{x + step / 2 - 2:.1f}" y="{y - 5:.1f}">{count:,}</text>'
        )
    floor = top + height
    ticks = "".join(
        f'<text x="{left + width * tick / 4:.1f}" y="{floor + 40}">{tick / 4:g}</text>'
        for tick in range(5)
    )
    dots = "".join(
        f'<circle cx="{left + width * score:.1f}" cy="{floor + 14}" r="4"/>'
        for score in scores[:_MOST_ROWS]
    )
    return (
        f'<svg class="rk-chart" viewBox="0 0 600 260" role="img" '
        f'aria-label="How many documents have which score">'
        f'<line x1="{left}" y1="{floor}" x2="{left + width}" y2="{floor}"/>{"".join(bars)}{dots}'
        f'{ticks}<text x="{left + width / 2}" y="{floor + 66}">relevance score</text></svg>'
    )


def snippets(shown: Shown) -> str:
    """The request that was asked, three times, each with a button that copies it."""
    blocks = (
        ("curl", shown.curl()),
        ("Python", shown.python()),
        ("TypeScript", shown.typescript()),
    )
    note = (
        hint("The key is read from the variable RANKD_API_KEY; it never stands here.")
        if shown.needs_key
        else ""
    )
    return note + "".join(_snippet(language, code) for language, code in blocks)


def _snippet(language: str, code: str) -> str:
    if len(code) > _MOST_CODE:
        return f"<h3>{language}</h3>" + hint(f"{len(code):,} characters: too long to be shown")
    return (
        f'<div class="rk-code"><div><h3>{language}</h3>'
        f'<button type="button" data-rk-copy>Copy as {language}</button></div>'
        f'<pre tabindex="0" data-language="{language.lower()}">{escaped(code)}</pre></div>'
    )

"""Renders answers as HTML. Every text goes through `escaped`, so users cannot add markup."""

from __future__ import annotations

import html
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankd.ui.answers import PageError, RerankAnswer
from rankd.ui.documents import Document
from rankd.ui.snippets import CodeSnippets

# Gradio interprets templates in HTML: `${}`, Handlebars, and its own `@children`.
_TEMPLATES = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "@": "&#64;", "`": "&#96;"})

# More makes the page slow.
_MAX_ROWS = 200
_MAX_TEXT_CHARACTERS = 2000
_MAX_CODE_CHARACTERS = 50_000

_BINS = 20


def escaped(text: object) -> str:
    """The text as HTML that a browser shows literally."""
    return html.escape(str(text)).translate(_TEMPLATES)


@dataclass(frozen=True, slots=True)
class RankingColumn:
    """One ranking to render.

    Attributes:
        previous_ranks: document index → rank in the order to compare with, both from 0.
        previous_name: name of that order, such as "in the input".
    """

    answer: RerankAnswer
    documents: Sequence[Document]
    previous_ranks: Mapping[int, int]
    previous_name: str

    @classmethod
    def of(cls, answer: RerankAnswer, documents: Sequence[Document]) -> RankingColumn:
        """Compared with the order of the input."""
        return cls(answer, documents, {n: n for n in range(len(documents))}, "in the input")


def server_info(name: str, facts: Sequence[str]) -> str:
    """The line with the served model."""
    spans = "".join(f"<span>{escaped(fact)}</span>" for fact in facts)
    return f'<div class="rk-served"><b>{escaped(name)}</b>{spans}</div>'


def hint(text: str) -> str:
    return f'<p class="rk-hint">{escaped(text)}</p>'


def error(error: PageError) -> str:
    """The message, the status and the request id."""
    request_id = f" · {escaped(error.request_id)}" if error.request_id else ""
    sentence = error.message[:1].upper() + error.message[1:]
    return (
        f'<div class="rk-error" role="alert"><p>{escaped(sentence)}.</p>'
        f"<small>{error.status}{request_id}</small></div>"
    )


def ranking(column: RankingColumn) -> str:
    """Results, best first: score, change of rank, text and details of each."""
    answer = column.answer
    rows = "".join(
        _row(column, rank, result) for rank, result in enumerate(answer.results[:_MAX_ROWS])
    )
    more = len(answer.results) - _MAX_ROWS
    rest = hint(f"and {more:,} more, which are not shown") if more > 0 else ""
    warnings = "".join(
        f'<p class="rk-warning">{escaped(warning)}</p>' for warning in answer.warnings
    )
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


def _row(column: RankingColumn, rank: int, result: Mapping[str, Any]) -> str:
    index, score = result["index"], result["relevance_score"]
    previous = column.previous_ranks.get(index, rank)
    tags = [f"<span>#{previous + 1} {escaped(column.previous_name)}</span>"]
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
        f'<li><div class="rk-rank"><b>{rank + 1}</b>{_change(previous - rank)}</div><div>'
        f'<div class="rk-score"><div class="rk-bar"><i style="width:{score * 100:.2f}%"></i></div>'
        f'<output title="{score!r}">{score:.4f}</output></div>'
        f'<p class="rk-text">{_text(column.documents[index])}</p>'
        f'<p class="rk-tags">{"".join(tags)}</p></div></li>'
    )


def _change(up: int) -> str:
    """An arrow and by how many ranks a document rose; negative: fell."""
    if up == 0:
        return '<span class="rk-same" title="same rank">=</span>'
    direction, arrow = ("up", "▲") if up > 0 else ("down", "▼")
    ranks = "rank" if abs(up) == 1 else "ranks"
    title = f"{abs(up)} {ranks} {direction}"
    return f'<span class="rk-{direction}" title="{title}">{arrow}{abs(up)}</span>'


def _text(document: Document) -> str:
    if isinstance(document, dict):
        text = document.get("text")
        if not isinstance(text, str):
            text = "\n".join(f"{name}: {value}" for name, value in document.items())
    else:
        text = document
    return escaped(
        text if len(text) <= _MAX_TEXT_CHARACTERS else text[:_MAX_TEXT_CHARACTERS] + " …"
    )


def comparison(first: RankingColumn, second: RankingColumn, names: tuple[str, str]) -> str:
    """Two rankings of the same documents, side by side."""
    order_a = [result["index"] for result in first.answer.results]
    order_b = [result["index"] for result in second.answer.results]
    different = sum(a != b for a, b in zip(order_a, order_b, strict=False))
    summary = (
        f"{different:,} of {len(first.documents):,} ranks differ; "
        f"the best document is {'the same' if order_a[:1] == order_b[:1] else 'another'}."
    )
    sides = "".join(
        f"<section><h3><span>{letter}</span>{escaped(name)}</h3>{ranking(column)}</section>"
        for letter, name, column in zip("AB", names, (first, second), strict=True)
    )
    return f'<p class="rk-difference">{summary}</p><div class="rk-sides">{sides}</div>'


def distribution(answer: RerankAnswer) -> str:
    """A histogram, a point for each score, and figures such as the widest gap."""
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
        facts.append(("widest gap", f"{gap:.4f} after rank {above + 1:,}"))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'{_histogram(counts, scores)}<dl class="rk-facts">{cells}</dl>'


def _histogram(counts: Sequence[int], scores: Sequence[float]) -> str:
    """An SVG of 600 by 260 units, in the colours of the page."""
    left, top, width, height, highest = 30, 20, 560, 170, max(counts)
    step = width / len(counts)
    bars = []
    for bin_index, count in enumerate(counts):
        if not count:
            continue
        bar_height = height * count / highest
        x, y = left + bin_index * step + 2, top + height - bar_height
        low, high = bin_index / len(counts), (bin_index + 1) / len(counts)
        bars.append(
            f'<rect class="rk-bin" x="{x:.1f}" y="{y:.1f}" width="{step - 4:.1f}" '
            f'height="{bar_height:.1f}" rx="2">'
            f"<title>{count:,} between {low:.2f} and {high:.2f}</title></rect>"
            f'<text x="{x + step / 2 - 2:.1f}" y="{y - 5:.1f}">{count:,}</text>'
        )
    axis = top + height
    ticks = "".join(
        f'<text x="{left + width * tick / 4:.1f}" y="{axis + 40}">{tick / 4:g}</text>'
        for tick in range(5)
    )
    dots = "".join(
        f'<circle cx="{left + width * score:.1f}" cy="{axis + 14}" r="4"/>'
        for score in scores[:_MAX_ROWS]
    )
    return (
        f'<svg class="rk-chart" viewBox="0 0 600 260" role="img" '
        f'aria-label="Histogram of relevance scores">'
        f'<line x1="{left}" y1="{axis}" x2="{left + width}" y2="{axis}"/>{"".join(bars)}{dots}'
        f'{ticks}<text x="{left + width / 2}" y="{axis + 66}">relevance score</text></svg>'
    )


def snippets(code: CodeSnippets) -> str:
    """The request in three languages, each with a button that copies it."""
    blocks = (
        ("curl", code.curl()),
        ("Python", code.python()),
        ("TypeScript", code.typescript()),
    )
    note = (
        hint("These programs read the key from the environment variable RANKD_API_KEY.")
        if code.needs_key
        else ""
    )
    return note + "".join(_snippet(language, code) for language, code in blocks)


def _snippet(language: str, code: str) -> str:
    if len(code) > _MAX_CODE_CHARACTERS:
        return f"<h3>{language}</h3>" + hint(f"{len(code):,} characters: too long to show")
    return (
        f'<div class="rk-code"><div><h3>{language}</h3>'
        f'<button type="button" data-rk-copy>Copy as {language}</button></div>'
        f'<pre tabindex="0" data-language="{language.lower()}">{escaped(code)}</pre></div>'
    )

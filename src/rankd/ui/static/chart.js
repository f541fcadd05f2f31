// Shows how the scores are distributed: histogram, a point for each score, figures.

import { el, hint, svg } from "./dom.js";
import { number, t } from "./labels.js";
import { fixed } from "./ranking.js";

const BINS = 20;
const MAX_POINTS = 200;

// The plot's edges within 600 by 260 units.
const LEFT = 30;
const TOP = 20;
const WIDTH = 560;
const HEIGHT = 170;
const AXIS = TOP + HEIGHT;

export function showDistribution(results) {
  const scores = results.map((result) => result.relevance_score).sort((a, b) => b - a);
  if (!scores.length) {
    return [hint(t("noScores"))];
  }
  const facts = figures(scores).map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value)),
  );
  return [histogram(scores), el("dl", { class: "facts" }, facts)];
}

// The figures below the chart, as [name, value]; scores are in descending order.
export function figures(scores) {
  const half = scores.filter((score) => score >= 0.5).length;
  const middle = scores.length / 2;
  const median = (scores[Math.ceil(middle - 1)] + scores[Math.floor(middle)]) / 2;
  const rows = [
    [t("best"), fixed(scores[0])],
    [t("median"), fixed(median)],
    [t("worst"), fixed(scores.at(-1))],
    [t("half"), t("of", { n: half, all: scores.length })],
  ];
  if (scores.length > 1) {
    const gaps = scores.slice(1).map((score, n) => scores[n] - score);
    const widest = gaps.reduce((best, gap, n) => (gap > gaps[best] ? n : best), 0);
    rows.push([t("gap"), t("gapAfter", { gap: fixed(gaps[widest]), n: widest + 1 })]);
  }
  return rows;
}

export function counts(scores) {
  const bins = new Array(BINS).fill(0);
  for (const score of scores) {
    bins[Math.max(0, Math.min(BINS - 1, Math.floor(score * BINS)))] += 1;
  }
  return bins;
}

function histogram(scores) {
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((tick) => label(LEFT + WIDTH * tick, AXIS + 40, tick));
  const points = scores
    .slice(0, MAX_POINTS)
    .map((score) => svg("circle", { cx: LEFT + WIDTH * score, cy: AXIS + 14, r: 4 }));
  return svg(
    "svg",
    { class: "chart", viewBox: "0 0 600 260", role: "img", "aria-label": t("chart") },
    svg("line", { x1: LEFT, y1: AXIS, x2: LEFT + WIDTH, y2: AXIS }),
    bars(counts(scores)),
    points,
    ticks,
    label(LEFT + WIDTH / 2, AXIS + 66, t("axis")),
  );
}

function bars(bins) {
  const step = WIDTH / bins.length;
  const highest = Math.max(...bins);
  return bins.flatMap((count, bin) => {
    if (!count) {
      return [];
    }
    const height = (HEIGHT * count) / highest;
    const [x, y] = [LEFT + bin * step + 2, AXIS - height];
    const [low, high] = [bin, bin + 1].map((edge) => (edge / bins.length).toFixed(2));
    const title = svg("title", {}, t("between", { n: count, low, high }));
    const box = { class: "bin", x, y, width: step - 4, height, rx: 2 };
    return [svg("rect", box, title), label(x + step / 2 - 2, y - 5, number(count))];
  });
}

const label = (x, y, text) => svg("text", { x, y }, String(text));

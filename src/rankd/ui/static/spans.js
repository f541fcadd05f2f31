// Parts of a document that the server found relevant.

// Characters shown before the first part of a long document.
const BEFORE = 80;

// A text in pieces, in its order: { text, score } of a relevant span, { text } of what is between.
// Spans count code points, as the server does; JavaScript's strings count half of an emoji.
export function pieces(characters, spans) {
  const found = [];
  let end = 0;
  const add = (from, to, score) => {
    if (from < to) {
      found.push({ text: characters.slice(from, to).join(""), ...(score !== undefined && { score }) });
    }
  };
  for (const span of [...spans].sort((a, b) => a.start - b.start)) {
    add(end, span.start);
    add(Math.max(end, span.start), span.end, span.score);
    end = Math.max(end, span.end);
  }
  add(end, characters.length);
  return found;
}

// The part of a long text that is shown first: its beginning, or where its best span is.
export function excerpt(characters, spans, size) {
  const best = spans[0];
  const start = best && best.end > size ? Math.max(0, best.start - BEFORE) : 0;
  const end = Math.min(characters.length, start + size);
  const inside = spans
    .map((span) => ({
      ...span,
      start: Math.max(span.start, start) - start,
      end: Math.min(span.end, end) - start,
    }))
    .filter((span) => span.start < span.end);
  return { characters: characters.slice(start, end), spans: inside, start, end };
}

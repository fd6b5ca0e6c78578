// What a search found, a page of queries at a time: from an answer that is here, or asked of a job of the service.

import { call, callJson } from "./api.js";

/** Queries of a page. */
export const PAGE_SIZE = 100;

/**
 * The result of an answer that is here in full: {summary, page, download, forget}.
 *
 * `page(offset, {onlyHits})` gives {queries, offset, total, generation}: `total` queries on all pages, and the numbering
 * of library rows that the hits are of. A query's `number` is its place in the answer, where that is known.
 */
export function ofAnswer(answer, download) {
  const every = answer.queries.map((query, number) => ({ ...query, number }));
  const some = every.filter((query) => query.hits.length);
  const page = async (offset, { onlyHits = false } = {}) => {
    const queries = onlyHits ? some : every;
    return { queries: queries.slice(offset, offset + PAGE_SIZE), offset, total: queries.length, generation: answer.index.generation };
  };
  const summary = { queries: every.length, with_hits: some.length };
  return { summary, page, download, forget() {} };
}

/** The result of a job that is done; `forget` lets the service drop it. */
export async function ofJob(path, signal) {
  const ask = (offset, onlyHits, signal) =>
    callJson(`${path}/hits?offset=${offset}&limit=${PAGE_SIZE}${onlyHits ? "&with_hits=true" : ""}`, { signal });
  let first = await ask(0, false, signal);
  const { summary } = first;
  const page = async (offset, { onlyHits = false, signal } = {}) => {
    const answer = first && !offset && !onlyHits ? first : await ask(offset, onlyHits, signal);
    first = null;
    const queries = onlyHits ? answer.queries : answer.queries.map((query, place) => ({ ...query, number: offset + place }));
    return { queries, offset, total: answer.page.total, generation: answer.index.generation };
  };
  return {
    summary, page, download: (format) => call(`${path}/hits?format=${format}`),
    forget() { call(path, { method: "DELETE" }).catch(() => {}); }, // it would end by itself, later
  };
}

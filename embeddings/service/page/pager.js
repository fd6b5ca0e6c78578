// Above the table of queries: which of them are shown, the next and the previous ones, and only those with a hit.

import { el } from "./dom.js";
import { PAGE_SIZE } from "./found.js";
import { count } from "./words.js";

/** “Queries 1–100 of 1,234”, or what is to be said where there are none. */
export function wordsOfPage({ offset, queries, total, onlyHits }) {
  const of = onlyHits ? `${total.toLocaleString("en")} with a hit` : total.toLocaleString("en");
  if (!total) return onlyHits ? "No query has a hit" : "No queries";
  if (queries.length === total) return count(total, onlyHits ? "query with a hit" : "query", onlyHits ? "queries with a hit" : "queries");
  return `Queries ${(offset + 1).toLocaleString("en")}–${(offset + queries.length).toLocaleString("en")} of ${of}`;
}

/**
 * The bar, or null where there is one query only. `onTurn({offset, onlyHits})` fetches another page.
 *
 * A button that leads nowhere keeps the focus, so that one who turns pages by the keyboard stays where they are.
 */
export function pager(shown, numQueries, onTurn) {
  if (numQueries < 2) return null;
  const turn = (text, offset, about) => {
    const isThere = offset !== null;
    return el("button", {
      type: "button", "aria-disabled": isThere ? null : "true", "aria-label": about, "data-turn": text.toLowerCase(),
      onclick: () => isThere && onTurn({ offset, onlyHits: shown.onlyHits }),
    }, text);
  };
  const previous = shown.offset > 0 ? Math.max(0, shown.offset - PAGE_SIZE) : null;
  const next = shown.offset + shown.queries.length < shown.total ? shown.offset + PAGE_SIZE : null;
  const onlyHits = el("input", {
    type: "checkbox", id: "only-hits", checked: shown.onlyHits,
    onchange: (event) => onTurn({ offset: 0, onlyHits: event.target.checked }),
  });
  const hasPages = shown.total > shown.queries.length;
  return el("nav", { class: "pager", "aria-label": "Pages of queries" },
    el("label", { class: "check" }, onlyHits, " Only with a hit"),
    el("span", { class: "told", id: "page-told" }, wordsOfPage(shown)),
    hasPages ? el("span", { class: "tools" }, turn("Previous", previous, "Previous queries"), turn("Next", next, "Next queries")) : null);
}

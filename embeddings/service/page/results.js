// The tables: queries, and the hits of one query. Every query is shown, one without a hit with its reason.

import { el, rove } from "./dom.js";
import { SCORES, charge, count, energy, fixed, formula, isNumber, percent, plain } from "./words.js";

/** Less than this is no other molecule: the column is left out where no hit differs by more. */
const LEAST_DIFFERENCE_DA = 0.01;
const FAR_PPM = 1000;

/** The ppm of a hit among spectra, or among structures. */
export const ppmOf = (hit) => hit.precursor_error_ppm ?? hit.mass_error_ppm;
export const idOf = (hit) => hit.library_id ?? hit.id ?? "";
export const nameOf = (hit) => hit.name || idOf(hit) || hit.formula || "unnamed";

/** What a query is called; a pasted list of peaks has no name of its own. */
export const titleOfQuery = (query) => query.name || (query.query_id === "query" ? "" : query.query_id) || "Pasted spectrum";

/** Warnings of a query as a list, however the service gives them. */
export function warningsOf(query) {
  const said = query.warnings ?? query.hits?.[0]?.warnings ?? [];
  return (Array.isArray(said) ? said : String(said).split(/;\s*/)).filter(Boolean);
}

/** A confidence in words (“level 3 at best: an analogue”): its level as a mark, and what it means. */
export function confidence(words) {
  if (!words) return el("span", { class: "muted" }, "–");
  const [, level, meaning] = /^(level \d[^:]*):\s*(.*)$/i.exec(words) ?? [null, "", words];
  const mark = level ? el("span", { class: "level", "data-level": /\d/.exec(level)[0] }, level) : null;
  return el("span", { class: "confidence" }, mark, " ", el("span", { class: "meaning" }, meaning));
}

function table(caption, columns, rows, classes) {
  const head = el("tr", { role: "row" }, columns.map((column) =>
    el("th", { scope: "col", role: "columnheader", class: column.class, title: column.about }, column.title)));
  return el("table", { role: "table", class: classes }, el("caption", { class: "visually-hidden" }, caption),
    el("thead", { role: "rowgroup" }, head), el("tbody", { role: "rowgroup" }, rows));
}

function cells(columns, thing) {
  return columns.map((column) =>
    el(column.header ? "th" : "td", {
      role: column.header ? "rowheader" : "cell", scope: column.header ? "row" : null, class: column.class,
      "data-label": column.label ?? column.title,
    }, column.cell(thing)));
}

/** A row is opened by its button, or by a click anywhere in it that selects no text. */
function openedByClick(row, button) {
  row.addEventListener("click", (event) => {
    if (!event.target.closest("button, a") && !String(getSelection())) button.click();
  });
  return row;
}

/** The queries of a page. */
export function queryTable(queries, { current, onOpen }) {
  const opener = (query) => el("button", {
    type: "button", class: "row-opener", "aria-current": queries[current] === query ? "true" : null,
    onclick: () => onOpen(queries.indexOf(query)),
  }, query.query_id);
  const columns = [
    { title: "Query", header: true, cell: opener },
    { title: "m/z", class: "number", cell: (query) => fixed(query.precursor_mz, 4) },
    { title: "Charge", class: "number", cell: (query) => charge(query.charge, query.polarity) },
    { title: "Peaks", class: "number", cell: (query) => String(query.num_peaks ?? query.peaks?.length ?? "–") },
    { title: "Best hit", class: "wide best", cell: (query) => best(query) },
    { title: "Score", class: "number", cell: (query) => fixed(query.hits[0]?.score, 3, { unknown: "" }) },
    queries.some((query) => query.hits[0]?.confidence) && {
      title: "Confidence", class: "words", cell: (query) => (query.hits.length ? confidence(query.hits[0].confidence) : ""),
    },
  ].filter(Boolean);
  const box = el("div", { class: "scroll queries", role: "region", "aria-label": "Queries", tabindex: "-1" });
  const body = table("Queries and the best hit of each", columns, [], "list");
  const buttons = queries.map((query) => {
    const row = el("tr", { role: "row", class: query.hits.length ? "" : "without" }, cells(columns, query));
    const button = row.querySelector("button.row-opener");
    body.tBodies[0].append(openedByClick(row, button));
    return button;
  });
  rove(body.tBodies[0], buttons);
  box.append(body);
  return box;
}

function best(query) {
  const [hit] = query.hits;
  if (!hit) return el("span", { class: "note" }, query.note || "no hit");
  return el("span", {}, nameOf(hit), " ", el("span", { class: "muted" }, formula(hit.formula)));
}

/** What is known of a query, its warnings, and why it has no hit. */
export function queryHead(query, numHidden) {
  const facts = [
    isNumber(query.precursor_mz) ? `m/z ${fixed(query.precursor_mz, 4)}` : null,
    query.charge || query.polarity ? `charge ${charge(query.charge, query.polarity)}` : null,
    query.adduct || null,
    isNumber(query.collision_energy) ? `${energy(query.collision_energy)} eV` : null,
    query.peaks ? count(query.peaks.length, "peak") : null,
  ].filter(Boolean);
  const head = el("div", { class: "query-head" },
    el("h3", {}, titleOfQuery(query)), el("p", { class: "muted" }, facts.join(" · ")));
  for (const warning of warningsOf(query)) {
    head.append(el("p", { class: "callout warning" }, el("strong", {}, "With care: "), warning));
  }
  if (query.note) head.append(el("p", { class: query.hits.length ? "callout" : "callout no-hit" },
    query.hits.length ? query.note : el("strong", {}, `No hit: ${query.note}`)));
  if (numHidden) head.append(el("p", { class: "muted" },
    `${count(numHidden, "hit")} below the least score ${numHidden === 1 ? "is" : "are"} not shown.`));
  return head;
}

function scoreCell(hit, highest) {
  const share = isNumber(hit.score) && highest > 0 ? Math.max(0, Math.min(1, hit.score / highest)) : 0;
  const meter = el("span", { class: "meter", "aria-hidden": "true" }, el("span"));
  meter.firstChild.style.setProperty("--share", String(share));
  return [fixed(hit.score, 3), meter];
}

function difference(hit) {
  if (!isNumber(hit.mass_difference)) return "–";
  if (Math.abs(hit.mass_difference) < LEAST_DIFFERENCE_DA) return "0";
  const words = el("span", {}, fixed(hit.mass_difference, 4, { sign: true }));
  if (hit.difference_formula) words.append(" ", el("span", { class: "delta" }, formula(hit.difference_formula)));
  return words;
}

/** The hits of one query; `onOpen(hit)` when one is chosen. */
export function hitTable(query, hits, { current, onOpen }) {
  if (!hits.length) return null;
  const any = (test) => hits.some(test);
  const structures = any((hit) => hit.mass_error_ppm !== undefined);
  const highest = Math.max(1, ...hits.map((hit) => hit.score ?? 0));
  const opener = (hit) => [
    el("button", {
      type: "button", class: "row-opener", "aria-current": hit === current ? "true" : null, "data-rank": hit.rank,
      onclick: () => onOpen(hit),
    }, nameOf(hit)),
    el("span", { class: "sub" }, hit.predicted ? el("span", { class: "tag" }, "predicted") : null,
      nameOf(hit) === idOf(hit) ? null : idOf(hit)),
  ];
  const columns = [
    { title: "#", label: "Rank", class: "rank", cell: (hit) => String(hit.rank) },
    { title: structures ? "Structure" : "Library spectrum", header: true, class: "wide", cell: opener },
    {
      title: "Score", class: "number score", cell: (hit) => scoreCell(hit, highest),
      about: `By ${SCORES[hits[0].score_name] ?? hits[0].score_name}`,
    },
    any((hit) => isNumber(hit.probability)) && {
      title: "Prob.", label: "Probability", class: "number", cell: (hit) => percent(hit.probability),
      about: structures
        ? "Probability that this structure is the query’s, from the calibration of the index"
        : "Probability that this hit’s molecule is the query’s, from the calibration of the index",
    },
    { title: "Formula", cell: (hit) => (hit.formula ? formula(hit.formula) : "–") },
    { title: "Adduct", cell: (hit) => hit.adduct || "–" },
    !structures && { title: "eV", label: "Energy, eV", class: "number", cell: (hit) => energy(hit.collision_energy) },
    { title: "ppm", label: "Error, ppm", class: "number", cell: (hit) => ppmWords(hit) },
    any((hit) => Math.abs(hit.mass_difference ?? 0) >= LEAST_DIFFERENCE_DA) && {
      title: "Δ mass, Da", class: "number", cell: difference, about: "Neutral mass of the query minus the library’s",
    },
    any((hit) => isNumber(hit.matched_peaks)) && {
      title: "Matched", label: "Matched peaks", class: "number", cell: (hit) => plain(hit.matched_peaks),
    },
    any((hit) => hit.confidence) && { title: "Confidence", class: "words", cell: (hit) => confidence(hit.confidence) },
  ].filter(Boolean);
  const rows = hits.map((hit) => {
    const row = el("tr", { role: "row", class: hit === current ? "current" : "" }, cells(columns, hit));
    return openedByClick(row, row.querySelector("button.row-opener"));
  });
  const body = table(`Hits of ${query.query_id || "the query"}, best first`, columns, rows, "list hit-list");
  rove(body.tBodies[0], rows.map((row) => row.querySelector("button.row-opener")));
  return el("div", { class: "scroll", role: "region", "aria-label": "Hits", tabindex: "-1" }, body);
}

/** The precursor's error in ppm; a dash for another mass, whose difference is told in Da. */
export function ppmWords(hit) {
  const ppm = ppmOf(hit);
  return isNumber(ppm) && Math.abs(ppm) < FAR_PPM ? fixed(ppm, 1, { sign: true }) : "–";
}

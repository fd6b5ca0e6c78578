// The page: joins the query, the search, the tables and the opened hit.

import { ServiceError, call, callJson, save, setKey } from "./api.js";
import { announce, byId, el } from "./dom.js";
import { PAGE_SIZE } from "./found.js";
import { openHit } from "./hit.js";
import { linkTo, pack, unpack } from "./link.js";
import {
  FieldError, clearFilters, formAsLink, formFromLink, leastScore, mode, numFilters, readOptions, setService,
} from "./options.js";
import { hasFile, pastedText, readQuery, setLimits, setSpectrum, setText, setUpQuery, showFieldError } from "./query.js";
import { pager, wordsOfPage } from "./pager.js";
import { hitTable, nameOf, queryHead, queryTable } from "./results.js";
import { search } from "./search.js";
import { SCORES, count } from "./words.js";

const SUFFIXES = { tsv: "tsv", gnps: "tsv", mztab: "mztab", jsonl: "jsonl" };
/** To choose from where the index has none of its own. */
const USUAL_ADDUCTS = ["[M+H]+", "[M+Na]+", "[M+NH4]+", "[M+H-H2O]+", "[M-H]-", "[M+HCOO]-", "[M+Cl]-"];

let found = null; // what found.js gives, wasFile, and shown: a page of it, and whether only queries with a hit are on it
let currentQuery = 0; // on the page
let opened = null; // {hit, panel}
let running = null;
let turning = null;

/* ---- what the service is -------------------------------------------------------------------------------------- */

async function describeService() {
  try {
    const info = await callJson("api/info");
    const things = info.index.kind === "structures" ? "structures" : "library spectra";
    const words = [`${info.index.size.toLocaleString("en")} ${things}`, info.calibrated ? "calibrated" : null, `ionbed ${info.version}`];
    byId("index-line").textContent = words.filter(Boolean).join(" · ");
    setLimits(info.limits);
    byId("score").replaceChildren(...info.scores.map((name) => el("option", { value: name }, SCORES[name] ?? name)));
    byId("score").value = info.default_score;
    byId("score-field").hidden = info.scores.length < 2;
    setService(info);
    byId("filters").classList.toggle("of-structures", info.index.kind === "structures");
    byId("filter-formulas-label").textContent = info.index.kind === "structures" ? "Formula" : "Formulas";
    for (const [name, id] of [["adduct", "adducts"], ["instrument_type", "instruments"], ["license", "licenses"]]) {
      byId(id).replaceChildren(...(info.filter_values[name] ?? (name === "adduct" ? USUAL_ADDUCTS : [])).map((value) => el("option", { value })));
    }
    byId("key-block").hidden = !info.api_key;
  } catch (error) {
    byId("index-line").textContent = "";
    if (error.status === 401) askForKey();
    else fail(error);
  }
}

function askForKey() {
  byId("key-block").hidden = false;
  byId("api-key").focus();
}

/* ---- a search ------------------------------------------------------------------------------------------------- */

async function run({ openRank = null, queryNumber = 0, focusResults = true } = {}) {
  let query, options;
  byId("alert").replaceChildren();
  showFieldError(null);
  try {
    leastScore();
    options = readOptions();
    query = readQuery();
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    showFieldError(error);
    announce(error.message);
    return;
  }
  for (const one of [running, turning]) one?.abort(new DOMException("replaced", "AbortError"));
  const controller = (running = new AbortController());
  closeHit({ restoreFocus: false });
  byId("stale").hidden = true;
  const started = performance.now();
  try {
    showProgress({ words: "Searching…" });
    const wasFile = hasFile();
    const result = await search(query, options, {
      signal: controller.signal, onProgress: showProgress,
      onWait: (seconds) => showProgress({ words: `The service is busy; trying again in ${seconds} s.` }),
    });
    const number = Math.min(queryNumber, Math.max(0, result.summary.queries - 1));
    currentQuery = number % PAGE_SIZE;
    const shown = await result.page(number - currentQuery, { signal: controller.signal });
    found?.forget();
    found = { ...result, wasFile, shown: { ...shown, onlyHits: false } };
    await keepLink();
    showAnswer((performance.now() - started) / 1000);
    const wanted = openRank === null ? null : shownHits().find((hit) => hit.rank === openRank);
    if (wanted) showHit(wanted);
    else if (focusResults) byId("answer-heading").focus({ preventScroll: innerWidth > 900 });
  } catch (error) {
    if (running === controller) byId("stale").hidden = !found; // what is shown is of an earlier search
    if (error.name !== "AbortError") fail(error, () => run(), query.name);
    else if (running === controller) announce("The search was cancelled.");
  } finally {
    if (running === controller) {
      running = null;
      hideProgress();
    }
  }
}

function showProgress({ words, done, total }) {
  byId("start").hidden = true;
  byId("progress-card").hidden = false;
  byId("results").setAttribute("aria-busy", "true");
  if (byId("progress-words").textContent !== words) byId("progress-words").textContent = words;
  const bar = byId("progress");
  if (total) {
    bar.max = total;
    bar.value = done;
  } else bar.removeAttribute("value");
  if (!total) announce(words);
}

function hideProgress() {
  byId("progress-card").hidden = true;
  byId("results").removeAttribute("aria-busy");
  byId("start").hidden = Boolean(found) || byId("alert").childElementCount > 0;
}

function fail(error, again = null, name = "") {
  if (error instanceof ServiceError && error.status === 401) askForKey();
  else if (!(error instanceof ServiceError) && !(error instanceof Error)) throw error;
  byId("alert").replaceChildren(el("div", { class: "callout error" },
    el("p", {}, el("strong", {}, titleOf(error, name)), error.message.replace(/^the file:? (?=is |holds )/, "It ")),
    again && error.status !== 401 ? el("button", { type: "button", onclick: again }, "Try again") : null));
  byId("start").hidden = true;
  byId("alert").scrollIntoView({ block: "nearest" });
}

function titleOf(error, name) {
  if (error.status === 413) return "Too large. ";
  if (error.status === 429 || error.status === 503) return "The service is busy. ";
  if (error.status === 401) return "A key is needed. ";
  if (error.status === 404 && error.path.startsWith("api/jobs/")) return "This search is no longer kept. ";
  if (error.status >= 400 && error.status < 500) return `${name || "This"} cannot be searched. `;
  return "The search failed. ";
}

/* ---- the answer ----------------------------------------------------------------------------------------------- */

const shownHits = () => {
  const least = leastOrNull();
  return (found.shown.queries[currentQuery]?.hits ?? []).filter((hit) => least === null || hit.score >= least);
};

function leastOrNull() {
  try {
    return leastScore();
  } catch {
    return null;
  }
}

function showAnswer(seconds = null) {
  byId("start").hidden = true;
  byId("answer").hidden = false;
  const { summary, shown } = found;
  const hits = shown.queries.flatMap((query) => query.hits);
  const parts = [
    count(summary.queries, "query", "queries"),
    summary.queries === 1 ? count(hits.length, "hit") : `${summary.with_hits.toLocaleString("en")} with hits`,
    hits.length ? `ranked by ${SCORES[hits[0].score_name] ?? hits[0].score_name}` : null,
    seconds === null ? null : `${seconds.toFixed(seconds < 10 ? 2 : 0)} s`,
  ].filter(Boolean);
  byId("answer-told").textContent = parts.join(" · ");
  announce(`Results: ${parts.slice(0, 2).join(", ")}.`);
  showPage();
}

function showPage() {
  const { summary, shown } = found;
  const isMany = summary.queries > 1;
  const table = isMany && shown.queries.length ? queryTable(shown.queries, { current: currentQuery, onOpen: chooseQuery }) : null;
  byId("queries").replaceChildren(...[pager(shown, summary.queries, turnPage), table].filter(Boolean));
  showQuery();
}

/** Show other queries; who turned the page keeps the focus where it was. */
async function turnPage({ offset, onlyHits }) {
  turning?.abort(new DOMException("replaced", "AbortError"));
  const controller = (turning = new AbortController());
  const { dataset, id } = document.activeElement;
  const held = dataset.turn ? `[data-turn="${dataset.turn}"]` : id ? `#${id}` : null;
  byId("queries").setAttribute("aria-busy", "true");
  try {
    const page = await found.page(offset, { onlyHits, signal: controller.signal });
    if (turning !== controller) return;
    closeHit({ restoreFocus: false });
    found.shown = { ...page, onlyHits };
    currentQuery = 0;
    announce(`${wordsOfPage(found.shown)}.`);
    keepLink();
  } catch (error) {
    if (turning !== controller) return; // for another page
    if (error.name !== "AbortError") fail(error, () => (error.status === 404 ? run() : turnPage({ offset, onlyHits })));
  }
  if (turning !== controller) return;
  turning = null;
  byId("queries").removeAttribute("aria-busy");
  showPage();
  if (held) byId("queries").querySelector(held)?.focus();
}

function chooseQuery(number) {
  closeHit({ restoreFocus: false });
  currentQuery = number;
  const rows = byId("queries").querySelectorAll("tbody tr");
  rows.forEach((row, place) => {
    row.classList.toggle("current", place === number);
    const button = row.querySelector("button");
    if (place === number) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
  showQuery();
  announce(`${found.shown.queries[number].query_id}: ${count(shownHits().length, "hit")}`);
}

function showQuery() {
  const query = found.shown.queries[currentQuery];
  if (!query) {
    byId("query-head").replaceChildren(el("p", { class: "callout no-hit" },
      found.shown.onlyHits ? "No query has a hit." : "The file holds no MS/MS spectrum."));
    byId("hits").replaceChildren();
    return;
  }
  byId("queries").querySelectorAll("tbody tr")[currentQuery]?.classList.add("current");
  byId("query-head").replaceChildren(queryHead(query, query.hits.length - shownHits().length));
  showHits();
}

function showHits() {
  const table = hitTable(found.shown.queries[currentQuery], shownHits(), { current: opened?.hit, onOpen: showHit });
  byId("hits").replaceChildren(...(table ? [table] : []));
}

function showHit(hit) {
  opened?.panel.close();
  const hits = shownHits();
  const place = hits.indexOf(hit);
  const to = (by) => (hits[place + by] ? () => showHit(hits[place + by]) : null);
  opened = {
    hit,
    panel: openHit(byId("hit"), { query: found.shown.queries[currentQuery], hit, generation: found.shown.generation }, { previous: to(-1), next: to(1), close: () => closeHit() }),
  };
  byId("answer").classList.add("with-open");
  showHits();
  bringIntoView();
  announce(`Hit ${hit.rank}: ${nameOf(hit)}`);
  keepLink();
}

/** The opened hit below the rows around its own; on a narrow screen, the hit. */
function bringIntoView() {
  const table = byId("hits").querySelector(".scroll");
  const row = table?.querySelector("tr.current");
  if (row && table.scrollHeight > table.clientHeight) table.scrollTop = row.offsetTop - table.clientHeight / 2;
  const isWide = innerWidth > 980;
  const { bottom } = byId("hit").getBoundingClientRect();
  if (isWide && bottom <= innerHeight) return;
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  (isWide ? byId("hits") : byId("hit")).scrollIntoView({ block: "start", behavior });
}

function closeHit({ restoreFocus = true } = {}) {
  if (!opened) return;
  const { rank } = opened.hit;
  opened.panel.close();
  opened = null;
  byId("answer").classList.remove("with-open");
  if (found) showHits();
  if (restoreFocus) byId("hits").querySelector(`button[data-rank="${rank}"]`)?.focus();
  keepLink();
}

async function download(format, button) {
  button.disabled = true;
  try {
    const response = await found.download(format);
    save(await response.blob(), `hits.${SUFFIXES[format]}`);
    announce(`hits.${SUFFIXES[format]} was downloaded.`);
  } catch (error) {
    fail(error, () => (error.status === 404 ? run() : download(format, button)));
  } finally {
    button.disabled = false;
  }
}

/* ---- links ---------------------------------------------------------------------------------------------------- */

async function fragment() {
  const link = formAsLink();
  link.set("q", await pack(pastedText()));
  const { number } = found.shown.queries[currentQuery] ?? {};
  if (number) link.set("query", String(number + 1));
  if (opened && number !== undefined) link.set("hit", String(opened.hit.rank)); // or it would be one of another query
  return link;
}

/** Keep what is shown in the address bar, where a link can hold it. */
async function keepLink() {
  if (!found) return;
  const url = found.wasFile ? null : linkTo(await fragment());
  history.replaceState(null, "", url ?? location.pathname + location.search);
}

async function copyLink() {
  if (found.wasFile) {
    notice("A link holds what was pasted, not a file: the service keeps no upload. Paste the spectrum instead, or send the file along.");
    return;
  }
  const url = linkTo(await fragment());
  if (!url) {
    notice("The pasted text is too long for a link. Send it as a file.");
    return;
  }
  try {
    await navigator.clipboard.writeText(url);
    notice("The link was copied. It holds the query and the options; nothing is stored by the service.");
  } catch {
    const field = el("input", { readonly: true, value: url, "aria-label": "Link", class: "link-field" });
    notice("Copy this link: ", field);
    field.select();
  }
}

function notice(...words) {
  byId("alert").replaceChildren(el("div", { class: "callout" }, el("p", {}, ...words),
    el("button", { type: "button", class: "quiet", onclick: () => byId("alert").replaceChildren() }, "Dismiss")));
}

async function restore() {
  const link = new URLSearchParams(location.hash.slice(1));
  if (!link.has("q")) return;
  const whole = (name) => (/^\d{1,6}$/.test(link.get(name) ?? "") ? Number(link.get(name)) : null);
  try {
    setText(await unpack(link.get("q")));
  } catch {
    fail(new Error("This link is damaged: its spectrum cannot be read. Ask for it again, or paste the peaks."));
    return;
  }
  formFromLink(link);
  tellOptions();
  await run({ openRank: whole("hit"), queryNumber: Math.max(0, (whole("query") ?? 1) - 1), focusResults: false });
}

/* ---- the form ------------------------------------------------------------------------------------------------- */

function tellOptions() {
  const isOpen = mode() === "open";
  byId("mode-told").textContent = isOpen
    ? "What is it like? Analogues of any mass."
    : "Which of these is it? Candidates of the query’s mass.";
  byId("tolerance-field").hidden = isOpen;
  const filters = numFilters();
  byId("filter-count").textContent = filters ? `${filters} set` : "";
}

function changed() {
  tellOptions();
  if (found && !running) byId("stale").hidden = false;
}

async function example() {
  try {
    const spectrum = await callJson("api/example");
    setSpectrum(spectrum);
    await run();
  } catch (error) {
    fail(error, example);
  }
}

function setUp() {
  setUpQuery(changed);
  const form = byId("search-form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  form.addEventListener("input", (event) => {
    if (event.target.id === "api-key") setKey(event.target.value.trim());
    else if (event.target.id === "filter-score") {
      tellOptions();
      if (found) {
        closeHit({ restoreFocus: false });
        showQuery();
      }
    } else if (event.target.id !== "peaks" && event.target.id !== "file") changed();
  });
  byId("peaks").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      run();
    }
  });
  byId("api-key").addEventListener("change", describeService);
  byId("example").addEventListener("click", example);
  byId("start-example").addEventListener("click", example);
  byId("again").addEventListener("click", () => run());
  byId("cancel").addEventListener("click", () => running?.abort(new DOMException("cancelled", "AbortError")));
  byId("filters").addEventListener("toggle", () => {
    if (byId("filters").open) byId("filters-clear").scrollIntoView({ block: "nearest" });
  });
  byId("filters-clear").addEventListener("click", () => { clearFilters(); changed(); });
  byId("copy-link").addEventListener("click", copyLink);
  byId("skip-link").addEventListener("click", (event) => {
    event.preventDefault(); // the fragment is the link's
    byId("results").focus();
  });
  for (const button of document.querySelectorAll("[data-format]")) {
    button.addEventListener("click", () => download(button.dataset.format, button));
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (running) byId("cancel").click();
    else closeHit();
  });
  addEventListener("hashchange", restore);
  tellOptions();
}

setUp();
await describeService();
await restore();

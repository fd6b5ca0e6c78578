// One hit, opened: the mirror plot, both structures, and what is known of query and library side by side.

import { callJson, picture, save } from "./api.js";
import { announce, el } from "./dom.js";
import { exportedSvg } from "./mirror_export.js";
import { mirrorPlot, wordsOfMark } from "./mirror.js";
import { confidence, idOf, nameOf, ppmWords, titleOfQuery } from "./results.js";
import { SCORES, charge, count, energy, fixed, formula, isNumber, percent, plain } from "./words.js";

const COMPARED = [
  ["Name", (it) => it.name],
  ["Precursor m/z", (it) => (isNumber(it.precursor_mz) ? fixed(it.precursor_mz, 4) : null)],
  ["Charge", (it) => (it.charge || it.polarity ? charge(it.charge, it.polarity) : null)],
  ["Adduct", (it) => it.adduct],
  ["Collision energy", (it) => (isNumber(it.collision_energy) ? `${energy(it.collision_energy)} eV` : null)],
  ["Instrument", (it) => [it.instrument_type, it.instrument].filter(Boolean).join(", ")],
  ["Peaks", (it) => (it.peaks?.length ? String(it.peaks.length) : null)],
  ["Formula", (it) => (it.formula ? formula(it.formula) : null)],
  ["InChIKey", (it) => it.inchikey],
  ["SMILES", (it) => it.smiles],
  ["Licence", (it) => it.license],
  ["Identifier", (it) => it.spectrum_id ?? it.id],
  ["Source", (it) => it.source_file],
];

/**
 * Show a hit in `section`. Returns {close()}, which ends what is still being fetched.
 *
 * `generation` is the numbering of rows that the hit is of: the service says so where its index has another by now.
 *
 * `around` has previous and next (functions or null) and close.
 */
export function openHit(section, { query, hit, generation }, around) {
  const stop = new AbortController();
  const urls = [];
  const asOf = generation ? `?generation=${encodeURIComponent(generation)}` : "";
  let plot = null;
  const plotBox = el("div", { class: "plot" }, el("p", { class: "muted waiting" }, "Drawing both spectra…"));
  const structures = el("div", { class: "structures" });
  const facts = el("div", { class: "facts" });
  const heading = el("h3", { id: "hit-heading", tabindex: "-1" }, el("span", { class: "muted" }, `Hit ${hit.rank} `), nameOf(hit));
  section.replaceChildren(
    el("div", { class: "hit-head" }, heading,
      el("div", { class: "tools" },
        el("button", { type: "button", disabled: !around.previous, onclick: around.previous, "aria-label": "Previous hit" }, "↑"),
        el("button", { type: "button", disabled: !around.next, onclick: around.next, "aria-label": "Next hit" }, "↓"),
        el("button", { type: "button", id: "hit-close", onclick: around.close, title: "Escape" }, "Close"))),
    summaryOf(hit),
    el("div", { class: "hit-body" }, plotBox, structures),
    facts,
  );
  section.hidden = false;
  heading.focus({ preventScroll: true });

  async function fill() {
    let entry = null;
    if (isNumber(hit.row)) entry = await callJson(`api/library/${hit.row}${asOf}`, { signal: stop.signal });
    const library = { ...(entry?.metadata ?? {}), precursor_mz: entry?.precursor_mz, peaks: entry?.peaks ?? [] };
    facts.replaceChildren(comparison(query, { ...library, name: library.name ?? hit.name, id: idOf(hit) }));
    await Promise.all([drawSpectra(library), drawStructures()]);
  }

  async function drawSpectra(library) {
    if (!query.peaks?.length) {
      plotBox.replaceChildren(el("p", { class: "muted waiting" }, "The answer holds no peaks of this query."));
      return;
    }
    const queryTitle = titleOf("Query", titleOfQuery(query), query.adduct, query.collision_energy);
    const data = { query: { peaks: query.peaks, precursor_mz: query.precursor_mz, title: queryTitle }, library: null, fragments: [], losses: [] };
    if (library.peaks.length) {
      const request = { precursor_mz: query.precursor_mz, peaks: query.peaks, row: hit.row, generation };
      if (query.charge) request.charge = query.charge;
      const mirror = await callJson("api/mirror", { method: "POST", json: request, signal: stop.signal });
      const places = (pairs) => pairs.map((pair) => ({ query: pair.query_peak, library: pair.library_peak }));
      data.query.peaks = mirror.query;
      data.library = {
        peaks: mirror.library, precursor_mz: mirror.library_precursor_mz,
        title: titleOf("Library", nameOf(hit), hit.adduct, hit.collision_energy) + (hit.predicted ? " · predicted" : ""),
      };
      data.fragments = places(mirror.fragments);
      data.losses = places(mirror.losses);
    }
    drawPlot(data);
  }

  function drawPlot(data) {
    const words = data.library
      ? `Mirror plot of the query and ${nameOf(hit)}: ${count(data.fragments.length, "matched fragment")}, `
        + `${count(data.losses.length, "matched neutral loss", "matched neutral losses")}, of ${data.query.peaks.length} query `
        + `and ${data.library.peaks.length} library peaks.`
      : `Spectrum of the query, ${count(data.query.peaks.length, "peak")}.`;
    const stage = el("div", { class: "stage" });
    const tool = (text, label, act, id) => el("button", { type: "button", id, "aria-label": label, title: label, onclick: act }, text);
    plotBox.replaceChildren(
      el("div", { class: "plot-head" }, legend(Boolean(data.library)),
        el("div", { class: "tools", role: "group", "aria-label": "Plot" },
          tool("+", "Zoom in", () => plot.zoom(1.6), "zoom-in"), tool("−", "Zoom out", () => plot.zoom(1 / 1.6), "zoom-out"),
          tool("Reset", "Show all", () => plot.reset(), "zoom-reset"),
          tool("SVG", "Download the plot as SVG", () => save(new Blob([exportedSvg(plot.root)], { type: "image/svg+xml" }), `${fileName(nameOf(hit))}-mirror.svg`), "plot-svg"))),
      stage,
      el("p", { class: "told hint" }, "Drag or scroll to zoom, double click to see all. With the plot in focus: + − 0 and arrow keys."));
    if (!data.library) plotBox.append(el("p", { class: "callout" }, "This index holds structures: there is no library spectrum to compare with."));
    plot = mirrorPlot(stage, data, { label: words, onSpeak: announce });
    if (data.library) plotBox.append(peakTable(plot.marks, data));
    announce(words);
  }

  async function drawStructures() {
    const figure = (title, path, words) => {
      const box = el("div", { class: path ? "structure" : "no-structure" }, el("p", { class: "muted" }, path ? "Drawing…" : words));
      structures.append(el("figure", {}, el("figcaption", {}, title), box));
      return path ? show(box, path, words) : null;
    };
    const show = async (box, path, alt) => {
      try {
        const url = await picture(path, stop.signal);
        urls.push(url);
        box.replaceChildren(el("img", { src: url, alt }));
      } catch (error) {
        if (error.name !== "AbortError") box.replaceChildren(el("p", { class: "muted waiting" }, "cannot be drawn: ", error.message));
      }
    };
    const ofQuery = query.smiles ? `api/structure.svg?smiles=${encodeURIComponent(query.smiles)}` : null;
    const ofLibrary = hit.smiles && isNumber(hit.row) ? `api/library/${hit.row}/structure.svg${asOf}` : null;
    const drawn = [
      ["Query", ofQuery, ofQuery ? `Structure that the query’s file states: ${query.smiles}` : "Unknown: the query states no structure."],
      ["Library", ofLibrary, ofLibrary ? `Structure of ${nameOf(hit)}: ${hit.smiles}` : "The library states no structure."],
    ];
    if (!ofQuery) drawn.reverse();
    await Promise.all(drawn.map((one) => figure(...one)));
  }

  fill().catch((error) => {
    if (error.name === "AbortError") return;
    plotBox.replaceChildren(el("p", { class: "callout error", role: "alert" }, error.message));
  });

  return {
    close() {
      stop.abort(new DOMException("closed", "AbortError"));
      plot?.destroy();
      urls.forEach((url) => URL.revokeObjectURL(url));
      section.hidden = true;
      section.replaceChildren();
    },
  };
}

function titleOf(which, name, adduct, ev) {
  return [`${which}: ${name || "unnamed"}`, adduct, isNumber(ev) ? `${energy(ev)} eV` : null].filter(Boolean).join(" · ");
}

function fileName(name) {
  return name.replace(/[^\w.-]+/g, "_").slice(0, 60) || "hit";
}

function summaryOf(hit) {
  const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  return el("dl", { class: "summary" },
    fact("Score", el("span", {}, fixed(hit.score, 3), hit.score_name
      ? el("span", { class: "meaning" }, ` ${SCORES[hit.score_name] ?? hit.score_name}`) : null)),
    isNumber(hit.probability) ? fact("Probability", percent(hit.probability)) : null,
    ppmWords(hit) === "–" ? null : fact("Precursor error", `${ppmWords(hit)} ppm`),
    isNumber(hit.mass_difference) && Math.abs(hit.mass_difference) >= 0.01
      ? fact("Mass difference", el("span", {}, `${fixed(hit.mass_difference, 4, { sign: true })} Da `, formula(hit.difference_formula))) : null,
    isNumber(hit.matched_peaks) ? fact("Matched peaks", plain(hit.matched_peaks)) : null,
    hit.confidence ? fact("Confidence", confidence(hit.confidence)) : null);
}

function legend(hasLibrary) {
  const entry = (kind, words) => el("li", {}, el("span", { class: `key ${kind}`, "aria-hidden": "true" }), words);
  return el("ul", { class: "legend", "aria-label": "Legend" },
    hasLibrary ? entry("fragment", "matched fragment") : null,
    hasLibrary ? entry("loss", "matched neutral loss") : null,
    entry("none", hasLibrary ? "no match" : "peak"), entry("precursor", "precursor"));
}

function peakTable(marks, { query, library }) {
  const precursors = { 1: query.precursor_mz, "-1": library.precursor_mz };
  const matched = marks.filter((mark) => mark.side > 0 && mark.partner).sort((a, b) => a.mz - b.mz);
  const head = ["Query m/z", "Query, %", "Library m/z", "Library, %", "Difference", "Match"];
  const row = (mark) => {
    const isLoss = mark.kind === "loss";
    const difference = isLoss
      ? `loss of ${fixed(precursors[1] - mark.mz, 4)} Da`
      : `${fixed((mark.mz / mark.partner.mz - 1) * 1e6, 1, { sign: true })} ppm`;
    const values = [fixed(mark.mz, 4), fixed(mark.share * 100, 1), fixed(mark.partner.mz, 4), fixed(mark.partner.share * 100, 1), difference, isLoss ? "neutral loss" : "fragment"];
    return el("tr", { title: wordsOfMark(mark, precursors) }, values.map((value, place) => el(place ? "td" : "th", { scope: place ? null : "row", class: place < 5 ? "number" : null }, value)));
  };
  const body = matched.length
    ? el("table", { class: "list small" }, el("caption", { class: "visually-hidden" }, "Matched peaks"),
      el("thead", {}, el("tr", {}, head.map((title, place) => el("th", { scope: "col", class: place < 5 ? "number" : null }, title)))),
      el("tbody", {}, matched.map(row)))
    : el("p", { class: "muted" }, "No peak of the query matches one of the library spectrum.");
  return el("details", { class: "peak-table" }, el("summary", {}, `Matched peaks as a table (${matched.length})`),
    el("p", { class: "told" }, "Peaks below 1% of the base peak, and the surviving precursor, are not compared: they match by chance."),
    el("div", { class: "scroll", role: "region", "aria-label": "Matched peaks", tabindex: "0" }, body));
}

function comparison(query, library) {
  const known = COMPARED.map(([name, of]) => [name, of(query), of(library)]).filter(([, ofQuery, ofLibrary]) => ofQuery || ofLibrary);
  const cell = (value, label) => el("td", { "data-label": label }, value || el("span", { class: "muted" }, "–"));
  return el("table", { class: "compare" }, el("caption", {}, "Query and library"),
    el("thead", {}, el("tr", {}, el("td", {}), el("th", { scope: "col" }, "Query"), el("th", { scope: "col" }, "Library"))),
    el("tbody", {}, known.map(([name, ofQuery, ofLibrary]) =>
      el("tr", {}, el("th", { scope: "row" }, name), cell(ofQuery, "Query"), cell(ofLibrary, "Library")))));
}

"use strict";
// The map: points by plotly.js, a legend, a search and the details of a spectrum in plain HTML beside them.

// Okabe and Ito's palette first, which most people can tell apart, then others between them.
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d1f", "#7a5ea8", "#b0c318",
  "#c2405a", "#2f6f6f", "#f0907a", "#5a6b8c", "#9c755f"];
const OTHER = "#b7bfc9";
const UNKNOWN = "#dfe4ea";
const RAMP = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];
const MOST_MATCHES = 25;

const $ = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

async function unpacked() {
  const packed = Uint8Array.from(atob($("data").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function array(Type, text) {
  return new Type(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}

function start(data) {
  const x = array(Float32Array, data.x), y = array(Float32Array, data.y);
  const count = x.length;
  const columns = new Map();
  for (const column of data.columns) {
    if (column.numbers !== undefined) column.values = array(Float64Array, column.numbers);
    else column.codes = array(Int32Array, column.codes);
    columns.set(column.name, column);
  }
  const rows = Array.from({ length: count }, (_, row) => row);
  const size = count > 30000 ? 3 : count > 8000 ? 4 : count > 1500 ? 5.5 : 7;
  const canvas = document.createElement("canvas");
  const type = canvas.getContext("webgl") ? "scattergl" : "scatter";
  const hidden = new Set();
  let groups = [];
  let kept = null; // the row that was clicked

  function text(name, row) {
    const column = columns.get(name);
    if (column.values) return Number.isNaN(column.values[row]) ? "" : column.values[row].toFixed(column.digits);
    return column.codes[row] < 0 ? "" : column.texts[column.codes[row]];
  }

  function title(row) {
    return text("name", row) || text("spectrum_id", row);
  }

  function hover(row) {
    const lines = [`<b>${escaped(shortened(title(row)))}</b>`];
    const of = [`m/z ${text("precursor_mz", row)}`, text("adduct", row), text("formula", row)].filter(Boolean);
    lines.push(escaped(of.join("  ")));
    if (text("name", row)) lines.push(escaped(shortened(text("spectrum_id", row))));
    return lines.join("<br>");
  }

  // plotly.js reads some tags in texts.
  const escaped = (words) => words.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const shortened = (words) => (words.length > 60 ? `${words.slice(0, 58)}…` : words);

  function grouped(column) {
    const byCode = new Map();
    for (const row of rows) {
      const code = column.codes[row];
      if (!byCode.has(code)) byCode.set(code, []);
      byCode.get(code).push(row);
    }
    const known = [...byCode].filter(([code]) => code >= 0);
    known.sort((a, b) => b[1].length - a[1].length || (column.texts[a[0]] < column.texts[b[0]] ? -1 : 1));
    const found = known.slice(0, PALETTE.length).map(([code, of], place) =>
      ({ label: column.texts[code], color: PALETTE[place], rows: of }));
    const rest = known.slice(PALETTE.length);
    if (rest.length === 1) found.push({ label: column.texts[rest[0][0]], color: OTHER, rows: rest[0][1] });
    else if (rest.length) {
      found.push({ label: `${number(rest.length)} others`, color: OTHER, rows: rest.flatMap(([, of]) => of) });
    }
    if (byCode.has(-1)) found.push({ label: "unknown", color: UNKNOWN, rows: byCode.get(-1) });
    return found;
  }

  function trace(of, marker) {
    return {
      type, mode: "markers", x: of.map((row) => x[row]), y: of.map((row) => y[row]), customdata: of,
      text: of.map(hover), hovertemplate: "%{text}<extra></extra>", marker: { size, opacity: 0.85, ...marker },
    };
  }

  function traces() {
    const column = columns.get($("color-by").value);
    const made = [];
    if (column.values) {
      const known = rows.filter((row) => !Number.isNaN(column.values[row]));
      const unknown = rows.filter((row) => Number.isNaN(column.values[row]));
      groups = unknown.length ? [{ label: "unknown", color: UNKNOWN, rows: unknown }] : [];
      if (unknown.length) made.push(trace(unknown, { color: UNKNOWN }));
      const range = limits(known.map((row) => column.values[row]));
      const scale = RAMP.map((color, place) => [place / (RAMP.length - 1), color]);
      made.push(trace(known, {
        color: known.map((row) => column.values[row]), colorscale: scale, cmin: range[0], cmax: range[1],
      }));
      legendOfNumbers(column, range);
    } else {
      groups = grouped(column);
      // The rarer last, so that they lie on top; what is unknown at the bottom.
      const shown = groups.filter((group) => !hidden.has(group.label));
      const bottom = (group) => (group.color === UNKNOWN ? 2 : group.color === OTHER ? 1 : 0);
      shown.sort((a, b) => bottom(b) - bottom(a) || b.rows.length - a.rows.length);
      made.push(...shown.map((group) => trace(group.rows, { color: group.color })));
      legendOfGroups();
    }
    const found = matches();
    if (found.length) made.push(circles(found, 1.5, "#17202b"));
    if (kept !== null) made.push(circles([kept], 3, "#d0006f"));
    return made;
  }

  function circles(of, width, color) {
    return {
      type, mode: "markers", x: of.map((row) => x[row]), y: of.map((row) => y[row]), hoverinfo: "skip",
      marker: { size: size + 6, color: "rgba(0,0,0,0)", line: { width, color } },
    };
  }

  function limits(values) {
    // From the 1st to the 99th of a hundred, so that one far value does not take all colours.
    const sorted = Float64Array.from(values).sort();
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    return sorted.length ? [at(0.01), at(0.99)] : [0, 1];
  }

  function legendOfNumbers(column, [low, high]) {
    const ramp = element("div", { class: "ramp", style: `background: linear-gradient(to right, ${RAMP.join(", ")})` });
    const ends = element("div", { class: "ends" }, element("span", {}, low.toFixed(column.digits)),
      element("span", {}, column.label), element("span", {}, high.toFixed(column.digits)));
    $("legend").replaceChildren(element("li", { class: "only" }, ramp, ends));
    for (const group of groups) $("legend").append(element("li", {}, entry(group, "div")));
  }

  function legendOfGroups() {
    const focused = document.activeElement?.dataset?.label;
    $("legend").replaceChildren(...groups.map((group) => {
      const button = entry(group, "button");
      button.type = "button";
      button.dataset.label = group.label;
      button.setAttribute("aria-pressed", String(!hidden.has(group.label)));
      button.title = "Show or hide";
      button.addEventListener("click", () => {
        if (!hidden.delete(group.label)) hidden.add(group.label);
        draw();
      });
      return element("li", {}, button);
    }));
    if (focused) [...$("legend").querySelectorAll("button")].find((of) => of.dataset.label === focused)?.focus();
  }

  function entry(group, tag) {
    return element(tag, tag === "div" ? { class: "only" } : {},
      element("span", { class: "swatch", style: `background: ${group.color}; display: inline-block` }),
      element("span", { class: "text" }, ` ${group.label} `), element("span", { class: "count" }, number(group.rows.length)));
  }

  let searched = { words: "", rows: [] };

  function matches() {
    const words = $("search").value.trim().toLowerCase();
    if (words === searched.words) return searched.rows;
    const found = [];
    if (words) {
      const named = ["name", "spectrum_id", "formula", "inchikey"].map((name) => {
        const column = columns.get(name);
        const fits = column.texts.map((of) => of.toLowerCase().includes(words));
        return { codes: column.codes, fits };
      });
      for (const row of rows) {
        if (named.some(({ codes, fits }) => codes[row] >= 0 && fits[codes[row]])) found.push(row);
      }
    }
    searched = { words, rows: found };
    return found;
  }

  function listMatches() {
    const found = matches();
    $("found").hidden = !searched.words;
    const more = found.length > MOST_MATCHES ? `; the first ${MOST_MATCHES}` : "";
    $("found-title").textContent = found.length
      ? `${number(found.length)} ${found.length === 1 ? "spectrum has" : "spectra have"} “${searched.words}”${more}`
      : `No spectrum has “${searched.words}” in its name, id, formula or InChIKey`;
    $("matches").replaceChildren(...found.slice(0, MOST_MATCHES).map((row) => {
      const button = element("button", { type: "button" }, element("span", { class: "text" }, title(row)),
        element("span", { class: "count" }, `m/z ${text("precursor_mz", row)}`));
      button.addEventListener("click", () => keep(row, true));
      return element("li", {}, button);
    }));
  }

  function details(row) {
    $("hint").hidden = true;
    const parts = [];
    const smiles = text("smiles", row);
    const drawing = data.structures[smiles];
    if (drawing) {
      const source = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(drawing)}`;
      parts.push(element("img", { src: source, alt: `Structure of ${title(row)}`, width: "320", height: "220" }));
    }
    parts.push(element("p", { class: "title" }, title(row)));
    const list = element("dl");
    for (const { name, label } of data.columns) {
      const value = name === "name" ? "" : text(name, row);
      if (value) list.append(element("dt", {}, label), element("dd", {}, value));
    }
    parts.push(list);
    $("details").replaceChildren(...parts);
  }

  function keep(row, centre) {
    kept = row;
    details(row);
    draw();
    if (centre) {
      const span = [$("plot").layout.xaxis.range, $("plot").layout.yaxis.range].map(([a, b]) => b - a);
      const isWide = span[0] > 0.98 * whole.x && span[1] > 0.98 * whole.y;
      const half = span.map((of) => (isWide ? of / 8 : of / 2));
      Plotly.relayout("plot", {
        "xaxis.range": [x[row] - half[0], x[row] + half[0]], "yaxis.range": [y[row] - half[1], y[row] + half[1]],
      });
    }
  }

  function extent(values) {
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    const room = 0.04 * (high - low) || 1;
    return [low - room, high + room];
  }

  const ranges = { x: extent(x), y: extent(y) };
  const whole = { x: ranges.x[1] - ranges.x[0], y: ranges.y[1] - ranges.y[0] };
  const axis = { showgrid: false, zeroline: false, showticklabels: false, ticks: "", title: { text: "" } };
  const layout = {
    xaxis: { ...axis, range: [...ranges.x] }, yaxis: { ...axis, range: [...ranges.y] },
    margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, hovermode: "closest", dragmode: "pan", uirevision: "map",
    paper_bgcolor: "#fff", plot_bgcolor: "#fff", hoverdistance: 12,
    hoverlabel: { bgcolor: "#fff", bordercolor: "#8a96a5", font: { color: "#17202b", size: 13 }, align: "left" },
  };
  const config = {
    responsive: true, scrollZoom: true, displaylogo: false,
    // These alone: another of plotly.js would send the spectra to its makers' site.
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d"]], showSendToCloud: false,
    toImageButtonOptions: { format: "png", scale: 2, filename: "map" },
  };

  function draw() {
    const drawn = Plotly.react("plot", traces(), layout, config);
    describe();
    return drawn;
  }

  function describe() {
    const column = columns.get($("color-by").value);
    const largest = groups.slice(0, 5).map((of) => `${of.label} (${number(of.rows.length)})`).join(", ");
    $("description").textContent = `${$("summary").textContent} Points near one another are spectra that the encoder `
      + `finds alike. Coloured by ${column.label}${largest ? `: ${largest}` : ""}. The search lists spectra as text.`;
  }

  for (const name of data.colours) $("color-by").append(element("option", { value: name }, columns.get(name).label));
  $("color-by").value = data.color_by;
  const sampled = data.spectra > count ? `, a sample of ${number(data.spectra)}` : "";
  const drawings = Object.keys(data.structures).length;
  const pictures = drawings < data.num_structures
    ? ` ${number(drawings)} of ${number(data.num_structures)} structures have a picture.` : "";
  $("summary").textContent = `${number(count)} spectra${sampled}, ${data.method} of their embeddings.${pictures}`;
  draw().then((plot) => {
    plot.on("plotly_hover", ({ points }) => { if (kept === null) details(points[0].customdata); });
    plot.on("plotly_click", ({ points }) => keep(points[0].customdata, false));
    document.documentElement.dataset.ready = "true";
  });
  $("color-by").addEventListener("change", () => { hidden.clear(); draw(); });
  let waiting;
  $("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { listMatches(); if (!searched.words) searched.rows = []; draw(); }, 150);
  });
  $("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    listMatches();
    if (searched.rows.length) keep(searched.rows[0], true);
    else draw();
  });
  $("reset").addEventListener("click", () => {
    kept = null;
    $("details").replaceChildren();
    $("hint").hidden = false;
    draw();
    Plotly.relayout("plot", { "xaxis.range": [...ranges.x], "yaxis.range": [...ranges.y] });
  });
}

if (typeof DecompressionStream === "undefined") {
  $("summary").textContent = "This browser is too old for the map; one of 2023 or later shows it.";
} else {
  unpacked().then(start).catch((error) => {
    $("summary").textContent = `The map cannot be shown: ${error.message}`;
    throw error;
  });
}

// Reads a pasted list of peaks, and tells one from the text of a file, which the service reads.

import { svg } from "./dom.js";

/** The kind of file that a text is, by its suffix, or "" for a list of peaks. */
export function kindOfText(text) {
  if (/^\s*BEGIN IONS\s*$/im.test(text)) return "mgf";
  if (/^\s*num ?peaks\s*[:=]/im.test(text)) return "msp";
  if (/^\s*<\?xml|<(indexed)?mzML[\s>]/i.test(text.slice(0, 2000))) return "mzML";
  if (/^\s*<mzXML[\s>]/im.test(text.slice(0, 2000))) return "mzXML";
  if (/^\s*>\w+/m.test(text) && /^\s*>parentmass/im.test(text)) return "ms";
  return "";
}

/** How many spectra a pasted text of this kind seems to have. */
export function spectraInText(text, kind) {
  const pattern = { mgf: /^\s*BEGIN IONS\s*$/gim, msp: /^\s*num ?peaks\s*[:=]/gim, mzML: /<spectrum\s/gi }[kind];
  return pattern ? (text.match(pattern) ?? []).length : 0;
}

/**
 * The peaks of a pasted list, by m/z: one a line, or `m/z:intensity` pairs with spaces between them.
 *
 * A comma is a decimal comma where something else separates the two numbers. A third column (an annotation) is not
 * read. Throws an Error that names the line.
 */
export function parsePeaks(text) {
  const peaks = [];
  const lines = /^\s*[\d.,]+:[\d.,eE+-]+(\s+[\d.,]+:[\d.,eE+-]+)+\s*$/.test(text) ? text.trim().split(/\s+/) : text.split(/\r?\n/);
  lines.forEach((line, number) => {
    const words = line.replace(/[[\]()]/g, " ").replace(/,(\s)/g, "$1").trim().replace(/,$/, "");
    if (!words || /^[#;%]/.test(words)) return;
    const separated = words.split(/[\s;:]+/);
    const pair = separated.length > 1 ? separated.map((word) => word.replace(",", ".")) : words.split(",");
    const [mz, intensity] = pair.slice(0, 2).map(Number);
    if (pair.length < 2 || !Number.isFinite(mz) || !Number.isFinite(intensity)) {
      if (!peaks.length && /^[a-z/\s_,;]+$/i.test(words)) return; // the names of the columns
      throw new Error(`line ${number + 1}: “${line.trim().slice(0, 40)}” is no m/z and intensity`);
    }
    if (mz <= 0) throw new Error(`line ${number + 1}: m/z ${mz} is not above 0`);
    if (intensity < 0) throw new Error(`line ${number + 1}: intensity ${intensity} is below 0`);
    if (intensity > 0) peaks.push([mz, intensity]);
  });
  return peaks.sort((a, b) => a[0] - b[0]);
}

/** Peaks as lines to paste. */
export function peaksAsText(peaks) {
  return peaks.map(([mz, intensity]) => `${Number(mz.toFixed(5))} ${Number(intensity.toPrecision(5))}`).join("\n");
}

/** A small drawing of a list of peaks. */
export function sketch(peaks, width = 320, height = 44) {
  const last = peaks.at(-1)[0] * 1.03;
  const first = Math.max(0, peaks[0][0] - (last - peaks[0][0]) * 0.05);
  const highest = Math.max(...peaks.map((peak) => peak[1]));
  const path = peaks
    .map(([mz, y]) => `M${(((mz - first) / (last - first)) * width).toFixed(1)} ${height}v${(-(y / highest) * (height - 3)).toFixed(1)}`)
    .join("");
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" }, svg("path", { d: path }));
}

// The query as a person gives it: pasted peaks, the pasted text of a file, a USI, or a file.

import { byId } from "./dom.js";
import { FieldError, readPrecursor, writePrecursor } from "./options.js";
import { kindOfText, parsePeaks, peaksAsText, sketch, spectraInText } from "./peaks.js";
import { bytes, count, fixed } from "./words.js";

const USI = /^\s*mzspec:\S+\s*$/;
let file = null;
let limits = {};

/** Watch the fields; `onChange` is called after each change of the query. */
export function setUpQuery(onChange) {
  byId("peaks").addEventListener("input", () => { tell(); onChange(); });
  byId("file").addEventListener("change", (event) => {
    if (event.target.files.length) take(event.target.files[0]);
    event.target.value = "";
    onChange();
  });
  byId("file-remove").addEventListener("click", () => {
    clearQuery();
    byId("peaks").focus();
    onChange();
  });
  byId("clear").addEventListener("click", () => {
    clearQuery();
    byId("peaks").focus();
    onChange();
  });
  setUpDrop(onChange);
  tell();
}

export function setLimits(told) {
  limits = told;
}

function setUpDrop(onChange) {
  const zone = byId("drop");
  let depth = 0;
  const holdsFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const mark = (on) => zone.classList.toggle("dropping", on);
  addEventListener("dragenter", (event) => { if (holdsFile(event)) { depth++; mark(true); } });
  addEventListener("dragleave", (event) => { if (holdsFile(event)) { depth = Math.max(0, depth - 1); mark(depth > 0); } });
  addEventListener("dragover", (event) => { if (holdsFile(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    depth = 0;
    mark(false);
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
    onChange();
  });
}

function take(chosen) {
  file = chosen;
  tell();
}

export function clearQuery() {
  file = null;
  byId("peaks").value = "";
  writePrecursor({});
  tell();
}

export const hasFile = () => file !== null;
export const pastedText = () => byId("peaks").value;

export function setText(text) {
  file = null;
  byId("peaks").value = text;
  tell();
}

/** Fill in a query of the service's own words (the example). */
export function setSpectrum(spectrum) {
  setText(peaksAsText(spectrum.peaks));
  writePrecursor(spectrum);
  byId("peaks-told").append(`. An example out of the index${spectrum.name ? `: ${spectrum.name}` : ""}`);
}

/** Say what the query seems to be, and show only the fields that it needs. */
export function tell() {
  const text = byId("peaks").value;
  const kind = file ? "file" : USI.test(text) ? "usi" : kindOfText(text);
  byId("file-card").hidden = !file;
  byId("peaks").hidden = Boolean(file);
  byId("precursor-fields").hidden = kind !== "";
  byId("file-name").textContent = file?.name ?? "";
  byId("file-size").textContent = file ? bytes(file.size) : "";
  byId("preview").hidden = true;
  byId("peaks-told").textContent = "";
  showFieldError(null);
  if (file || !text.trim()) return;
  if (kind) {
    const number = spectraInText(text, kind);
    byId("peaks-told").textContent = kind === "usi" ? "A universal spectrum identifier."
      : `Text of ${/^[aeiouAEIOUmM]/.test(kind) ? "an" : "a"} ${kind.toUpperCase().replace("MZ", "mz")} file${number ? `, ${count(number, "spectrum", "spectra")}` : ""}; precursors are read from it.`;
    return;
  }
  try {
    const peaks = parsePeaks(text);
    if (!peaks.length) return;
    byId("peaks-told").textContent = `${count(peaks.length, "peak")}, m/z ${fixed(peaks[0][0], 1)} to ${fixed(peaks.at(-1)[0], 1)}`;
    byId("preview").replaceChildren(sketch(peaks));
    byId("preview").hidden = false;
  } catch (error) {
    byId("peaks-told").textContent = error.message;
  }
}

/**
 * The query, checked: {file} for what the service reads, {peaks…} for a list, {usi}.
 *
 * Throws FieldError where something is missing or wrong.
 */
export function readQuery() {
  const text = byId("peaks").value;
  if (file) {
    if (limits.upload_bytes && file.size > limits.upload_bytes) {
      throw new FieldError("file", `${file.name} has ${bytes(file.size)}; this service takes up to ${bytes(limits.upload_bytes)}. Split it, or use “ionbed search”`);
    }
    if (!file.size) throw new FieldError("file", `${file.name} is empty`);
    return { file, name: file.name };
  }
  if (!text.trim()) throw new FieldError("peaks", "Paste peaks, choose a file, or take the example");
  if (USI.test(text)) return { usi: text.trim() };
  const kind = kindOfText(text);
  if (kind) return { file: new File([text], `pasted.${kind}`, { type: "text/plain" }), name: "the pasted text" };
  let peaks;
  try {
    peaks = parsePeaks(text);
  } catch (error) {
    throw new FieldError("peaks", error.message);
  }
  if (!peaks.length) throw new FieldError("peaks", "There is no peak with an intensity above 0");
  if (limits.peaks && peaks.length > limits.peaks) {
    throw new FieldError("peaks", `${count(peaks.length, "peak")} are more than the ${limits.peaks.toLocaleString("en")} that this service takes`);
  }
  return { spectrum: { ...readPrecursor(), peaks } };
}

const ERROR_OF_FIELD = { peaks: "peaks-error", file: "peaks-error", "precursor-mz": "precursor-error", energy: "precursor-error" };

/** Show a FieldError beside its field and go there; null takes the last one away. */
export function showFieldError(error) {
  for (const id of ["peaks-error", "precursor-error", "options-error"]) byId(id).hidden = true;
  document.querySelectorAll("[aria-invalid]").forEach((field) => field.removeAttribute("aria-invalid"));
  if (!error) return;
  const place = byId(ERROR_OF_FIELD[error.field] ?? "options-error");
  place.textContent = error.message;
  place.hidden = false;
  const field = byId(error.field);
  field.setAttribute("aria-invalid", "true");
  const closed = field.closest("details:not([open])");
  if (closed) closed.open = true;
  field.focus();
}

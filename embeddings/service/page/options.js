// What the form says: the options of a search, checked, and as they stand in a link.

import { byId } from "./dom.js";
import { typedNumber } from "./words.js";

let mostHits = 100;
/** Of no collision, in eV: stands for “no upper end”. */
const HIGHEST_ENERGY = 100000;

/** Ids of the fields whose text a link carries, by their short name in it. */
const FIELDS = {
  mz: "precursor-mz", z: "charge", adduct: "adduct", ev: "energy",
  tol: "tolerance", unit: "tolerance-unit", k: "k", score: "score",
  fpol: "filter-polarity", fadduct: "filter-adducts", finst: "filter-instruments", fformula: "filter-formulas",
  flic: "filter-licenses", fev: "filter-energy-from", fevto: "filter-energy-to", fscore: "filter-score",
};
const DEFAULTS = { tol: "10", unit: "ppm", k: "10" };

/** A value of the form that cannot be used; `field` is the id of its input. */
export class FieldError extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

let ofStructures = false;

/** Learn what the service serves: an index of structures has one filter, the formula of the candidates. */
export function setService(info) {
  ofStructures = info.index.kind === "structures";
  mostHits = info.limits.k;
}

const text = (id) => byId(id).value.trim();
const list = (id) => text(id).split(/[,;]/).map((word) => word.trim()).filter(Boolean);

function number(id, what, least = -Infinity, most = Infinity) {
  const value = typedNumber(text(id));
  if (value === null) return null;
  if (Number.isNaN(value)) throw new FieldError(id, `${what}: “${text(id)}” is no number`);
  if (value < least || value > most) {
    throw new FieldError(id, `${what} must be ${most === Infinity ? `${least} or more` : `from ${least} to ${most}`}`);
  }
  return value;
}

export function mode() {
  return document.querySelector("input[name=mode]:checked").value;
}

export function setMode(value) {
  for (const input of document.querySelectorAll("input[name=mode]")) input.checked = input.value === value;
}

/** The options of a search, as the service names them. */
export function readOptions() {
  const k = number("k", "Hits a query", 1, mostHits);
  const options = { mode: mode(), k: Math.round(k ?? 10) };
  if (options.mode === "identity") {
    const tolerance = number("tolerance", "The precursor's window", 0) ?? 10;
    options[text("tolerance-unit") === "Da" ? "precursor_da" : "precursor_ppm"] = tolerance;
  }
  if (text("score")) options.score = text("score");
  if (ofStructures) {
    if (text("filter-formulas")) options.formula = text("filter-formulas");
    return options;
  }
  const filters = readFilters();
  if (Object.keys(filters).length) options.filters = filters;
  return options;
}

function readFilters() {
  const filters = {};
  if (text("filter-polarity")) filters.polarity = Number(text("filter-polarity"));
  const lists = { adducts: "adducts", instrument_types: "instruments", formulas: "formulas", licenses: "licenses" };
  for (const [name, id] of Object.entries(lists)) {
    const values = list(`filter-${id}`);
    if (values.length) filters[name] = values;
  }
  const from = number("filter-energy-from", "The least energy", 0);
  const to = number("filter-energy-to", "The highest energy", 0);
  if (from !== null || to !== null) {
    if (from !== null && to !== null && from > to) throw new FieldError("filter-energy-to", "The energies: “from” is above “to”");
    filters.energy = [from ?? 0, to ?? HIGHEST_ENERGY];
  }
  return filters;
}

/** The least score of a hit that is shown, or null. */
export function leastScore() {
  return number("filter-score", "The least score");
}

/** How many filters are set. */
export function numFilters() {
  const ids = ["polarity", "adducts", "instruments", "formulas", "licenses", "score"].map((id) => `filter-${id}`);
  return ids.filter((id) => text(id)).length + (text("filter-energy-from") || text("filter-energy-to") ? 1 : 0);
}

export function clearFilters() {
  for (const [short, id] of Object.entries(FIELDS)) if (/^f/.test(short)) byId(id).value = "";
}

/** What is known of the query besides its peaks, as the service names it. */
export function readPrecursor() {
  const precursor = number("precursor-mz", "The precursor’s m/z", 0);
  if (precursor === null) throw new FieldError("precursor-mz", "A list of peaks needs the precursor’s m/z");
  if (precursor === 0) throw new FieldError("precursor-mz", "The precursor’s m/z must be above 0");
  const query = { precursor_mz: precursor };
  if (text("charge")) {
    query.charge = Number(text("charge"));
    query.polarity = Math.sign(query.charge);
  }
  if (text("adduct")) query.adduct = text("adduct");
  const energy = number("energy", "The collision energy", 0);
  if (energy !== null) query.collision_energy = energy;
  return query;
}

/** Fill in what is known of a query of the service. */
export function writePrecursor(query) {
  const charge = query.charge ? (query.polarity < 0 ? -Math.abs(query.charge) : query.charge) : query.polarity;
  byId("precursor-mz").value = query.precursor_mz ? String(Number(query.precursor_mz.toFixed(6))) : "";
  byId("charge").value = charge ? String(charge) : "";
  byId("adduct").value = query.adduct ?? "";
  byId("energy").value = query.collision_energy ? String(Number(query.collision_energy.toFixed(3))) : "";
}

/** The form as it stands in a link. */
export function formAsLink() {
  const link = new URLSearchParams();
  if (mode() !== "identity") link.set("mode", mode());
  for (const [short, id] of Object.entries(FIELDS)) {
    const value = text(id);
    if (value && value !== DEFAULTS[short] && !(short === "score" && byId(id).selectedIndex === 0)) link.set(short, value);
  }
  return link;
}

/** Fill in the form from a link; what a link does not say is as at first. */
export function formFromLink(link) {
  setMode(link.get("mode") === "open" ? "open" : "identity");
  for (const [short, id] of Object.entries(FIELDS)) {
    const field = byId(id);
    const value = (link.get(short) ?? DEFAULTS[short] ?? "").slice(0, 500);
    if (field.tagName !== "SELECT") field.value = value;
    else field.value = [...field.options].some((option) => option.value === value) ? value : field.options[0]?.value ?? "";
  }
}

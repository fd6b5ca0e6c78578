// How numbers, formulas and adducts are written on the page.

import { el } from "./dom.js";

const MINUS = "\u2212";

/** What hits can be ranked by, as the service calls it and in words. */
export const SCORES = { cosine: "learned embedding", fused: "embedding and look-ups", predicted: "predicted spectra" };

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** A number with fixed decimals and a true minus; a dash where it is unknown. */
export function fixed(value, decimals, { sign = false, unknown = "–" } = {}) {
  if (!isNumber(value)) return unknown;
  const text = Math.abs(value).toFixed(decimals);
  const zero = Number(text) === 0;
  return (value < 0 && !zero ? MINUS : sign && !zero ? "+" : "") + text;
}

/** A number without needless decimals. */
export function plain(value, unknown = "–") {
  return isNumber(value) ? String(Number(value.toPrecision(6))).replace("-", MINUS) : unknown;
}

/** A collision energy in eV, as exact as anybody sets one. */
export function energy(value) {
  return isNumber(value) ? plain(Number(value.toFixed(1))) : "–";
}

export function percent(value) {
  if (!isNumber(value)) return "–";
  if (value > 0.99 && value < 1) return "> 99%";
  if (value > 0 && value < 0.01) return "< 1%";
  return `${Math.round(value * 100)}%`;
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function bytes(number) {
  if (number < 1000) return `${number} bytes`;
  const power = Math.min(3, Math.floor(Math.log10(number) / 3));
  return `${(number / 1000 ** power).toFixed(1)} ${["", "kB", "MB", "GB"][power]}`;
}

/** A formula with its counts as subscripts; one with a minus before it is a loss. */
export function formula(text) {
  const node = el("span", { class: "formula" });
  if (!text) return node;
  for (const part of String(text).replace(/(?!^)-/g, ` ${MINUS}`).replace(/-/g, MINUS).split(/(\d+)/)) {
    if (/^\d+$/.test(part)) node.append(el("sub", {}, part));
    else if (part) node.append(part);
  }
  return node;
}

/** A charge as it is written after an ion: 2+. */
export function charge(value, polarity) {
  if (!isNumber(value) || value === 0) return { 1: "positive", "-1": "negative" }[polarity] ?? "–";
  const sign = value < 0 || polarity < 0 ? MINUS : "+";
  return `${Math.abs(value)}${sign}`;
}

/** The number in what a person typed, with a comma or a point; null where there is none, NaN where it is no number. */
export function typedNumber(text) {
  const words = text.trim().replace(MINUS, "-").replace(",", ".");
  if (!words) return null;
  return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(words) ? Number(words) : NaN;
}

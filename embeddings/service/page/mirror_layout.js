// Where things stand in a mirror plot: ticks of the axes, and labels that neither overlap nor are crossed by a peak.

/** Round values in [least, most], some `wanted` of them, and the decimals they need. */
export function ticks(least, most, wanted) {
  const rough = (most - least) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const values = [];
  for (let at = Math.ceil(least / step - 1e-9); at * step <= most + step * 1e-9; at++) values.push(at * step);
  return { values, decimals: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/**
 * Which peaks are labelled: the highest first, each where there is room for it.
 *
 * `peaks` have x and y (px) of their tips, `side` +1 above the axis and -1 below, `weight`, `text`; `bounds` has
 * left and right. Returns {peak, x, y} of each label, y of its baseline.
 */
export function placeLabels(peaks, bounds, { most = 16, height = 12, perCharacter = 6.1, wanted = () => true } = {}) {
  const placed = [];
  const boxes = [];
  const perSide = new Map();
  for (const peak of [...peaks].sort((a, b) => b.weight - a.weight)) {
    if (!wanted(peak) || (perSide.get(peak.side) ?? 0) >= most) continue;
    const half = (peak.text.length * perCharacter) / 2;
    const x = Math.min(bounds.right - half, Math.max(bounds.left + half, peak.x));
    const near = peak.y - peak.side * 5;
    const far = near - peak.side * height;
    const box = { left: x - half - 2, right: x + half + 2, top: Math.min(near, far), bottom: Math.max(near, far), side: peak.side };
    const meets = boxes.some((o) => o.side === box.side && o.left < box.right && box.left < o.right && o.top < box.bottom && box.top < o.bottom);
    const crossed = peaks.some((o) => o !== peak && o.side === peak.side && o.x > box.left && o.x < box.right && (near - o.y) * peak.side > 0);
    if (meets || crossed) continue;
    boxes.push(box);
    perSide.set(peak.side, (perSide.get(peak.side) ?? 0) + 1);
    placed.push({ peak, x, y: peak.side > 0 ? near : near + height - 3 });
  }
  return placed;
}

/** The m/z range that shows everything of both spectra. */
export function wholeRange(spectra) {
  const all = spectra.filter(Boolean).flatMap((spectrum) => [...spectrum.peaks.map((peak) => peak[0]), spectrum.precursor_mz])
    .filter(Number.isFinite);
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const margin = Math.max((most - least) * 0.04, 10);
  return [Math.max(0, least - margin), most + margin];
}

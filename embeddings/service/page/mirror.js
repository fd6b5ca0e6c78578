// The mirror plot: the query up, the library spectrum down, what matches in colour and shape; zoomed by drag, wheel,
// pinch and keys.

import { el, svg } from "./dom.js";
import { placeLabels, ticks, wholeRange } from "./mirror_layout.js";
import { fixed } from "./words.js";

const NARROWEST_DA = 0.05;
const MARGIN = { left: 46, right: 14, top: 28, bottom: 46 };
/** Share of the highest peak shown below which a peak has no label. */
const LEAST_LABELLED = 0.02;
const KEYS = "Plus and minus zoom, left and right arrows move, up and down arrows go from peak to peak, 0 shows all.";

/** The peaks of both spectra as one list, each with its side, share of the base peak, kind of match and partner. */
function marksOf({ query, library, fragments, losses }) {
  const marks = [];
  const sides = [[query, 1, 0], [library, -1, 1]];
  for (const [spectrum, side] of sides) {
    if (!spectrum) continue;
    const base = Math.max(...spectrum.peaks.map((peak) => peak[1]));
    spectrum.peaks.forEach(([mz, intensity], place) => marks.push({ mz, share: intensity / base, side, place, kind: "none", partner: null }));
  }
  const at = (side, place) => marks.find((mark) => mark.side === side && mark.place === place);
  for (const [pairs, kind] of [[fragments, "fragment"], [losses, "loss"]]) {
    for (const pair of pairs) {
      const [up, down] = [at(1, pair.query), at(-1, pair.library)];
      if (!up || !down || up.partner || down.partner) continue;
      Object.assign(up, { kind, partner: down });
      Object.assign(down, { kind, partner: up });
    }
  }
  return marks;
}

export function wordsOfMark(mark, precursors) {
  const which = mark.side > 0 ? "query" : "library";
  const own = `${which} m/z ${fixed(mark.mz, 4)}, ${fixed(mark.share * 100, 1)}%`;
  if (mark.kind === "fragment") {
    const ppm = (mark.mz / mark.partner.mz - 1) * 1e6 * mark.side;
    return `${own}; matches ${fixed(mark.partner.mz, 4)} (${fixed(ppm, 1, { sign: true })} ppm)`;
  }
  if (mark.kind === "loss") {
    return `${own}; same neutral loss as ${fixed(mark.partner.mz, 4)} (${fixed(precursors[mark.side] - mark.mz, 4)} Da)`;
  }
  return `${own}; no match`;
}

/**
 * Draw a mirror plot into `container` and return its handles: reset(), zoom(factor), toSvg(), destroy().
 *
 * `query` and `library` are {peaks: [[mz, intensity]...], precursor_mz, title}; `library` is null for a structure
 * without a spectrum. `fragments` and `losses` list {query, library}: places in the two lists of peaks.
 */
export function mirrorPlot(container, data, { label, onSpeak = () => {} }) {
  const { query, library } = data;
  const marks = marksOf(data);
  const precursors = { 1: query.precursor_mz, "-1": library?.precursor_mz };
  const whole = wholeRange([query, library]);
  let [from, to] = whole;
  let width = 720;
  let height = 400;
  let current = null;
  let drag = null;

  const root = svg("svg", { class: "mirror", role: "img", "aria-label": label });
  const tip = el("p", { class: "tip", hidden: true });
  const frame = el("div", { class: "mirror-frame", tabindex: "0", role: "group", "aria-label": `Mirror plot. ${KEYS}` }, root, tip);
  container.replaceChildren(frame);

  const inner = () => ({ left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom });
  const xOf = (mz) => MARGIN.left + ((mz - from) / (to - from)) * (width - MARGIN.left - MARGIN.right);
  const mzOf = (x) => from + ((x - MARGIN.left) / (width - MARGIN.left - MARGIN.right)) * (to - from);

  function show(newFrom, newTo) {
    const span = Math.min(whole[1] - whole[0], Math.max(NARROWEST_DA, newTo - newFrom));
    const middle = (newFrom + newTo) / 2;
    from = Math.max(whole[0], Math.min(whole[1] - span, middle - span / 2));
    to = from + span;
    current = null;
    draw();
  }

  function zoom(factor, at = (from + to) / 2) {
    show(at - (at - from) / factor, at + (to - at) / factor);
  }

  const reset = () => show(...whole);
  const isWhole = () => to - from > (whole[1] - whole[0]) * 0.999;

  function draw() {
    const box = inner();
    const middle = library ? (box.top + box.bottom) / 2 : box.bottom;
    const visible = marks.filter((mark) => mark.mz >= from && mark.mz <= to);
    const highest = Math.max(0.01, ...visible.map((mark) => mark.share));
    const reach = (middle - box.top) - 20;
    const yOf = (mark) => middle - (mark.side * mark.share * reach) / highest;
    root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    root.replaceChildren(svg("rect", { class: "ground", x: 0, y: 0, width, height }));
    drawAxes(box, middle, reach, highest);
    drawPrecursors(box, middle);
    const ends = visible.map((mark) => ({ mark, x: xOf(mark.mz), y: yOf(mark), side: mark.side }));
    const rank = { none: 0, loss: 1, fragment: 2 };
    for (const { mark, x, y } of [...ends].sort((a, b) => rank[a.mark.kind] - rank[b.mark.kind])) {
      const classes = `stick ${mark.kind} ${mark.side > 0 ? "up" : "down"}${isLit(mark) ? " lit" : ""}`;
      root.append(svg("line", { class: classes, x1: x, x2: x, y1: middle, y2: y }), tipOf(mark, x, y));
    }
    const named = ends.map((end) => ({
      ...end, weight: end.mark.share * (end.mark.kind === "none" ? 1 : 2), text: fixed(end.mark.mz, to - from < 4 ? 4 : 3),
    }));
    const labels = placeLabels(named, box, {
      most: Math.max(4, Math.round(width / 60)), wanted: (end) => end.mark.share >= highest * LEAST_LABELLED,
    });
    for (const { peak, x, y } of labels) {
      root.append(svg("text", { class: `peak-label ${peak.mark.kind}`, x, y, "text-anchor": "middle" }, peak.text));
    }
    drawTitles(box);
    if (drag?.to !== undefined) {
      const [left, right] = [drag.from, drag.to].sort((a, b) => a - b);
      root.append(svg("rect", { class: "brush", x: left, width: right - left, y: box.top, height: box.bottom - box.top }));
    }
    frame.classList.toggle("zoomed", !isWhole());
    showTip(ends.find((end) => end.mark === current));
  }

  const isLit = (mark) => current !== null && (mark === current || mark === current.partner);

  function tipOf(mark, x, y) {
    const size = isLit(mark) ? 5 : 3.4;
    if (mark.kind === "fragment") return svg("circle", { class: "end fragment", cx: x, cy: y, r: size });
    if (mark.kind === "loss") return svg("path", { class: "end loss", d: `M${x} ${y - size - 1}l${size + 1} ${size + 1}l${-size - 1} ${size + 1}l${-size - 1} ${-size - 1}z` });
    return "";
  }

  function drawAxes(box, middle, reach, highest) {
    const x = ticks(from, to, width / 95);
    for (const value of x.values) {
      const at = xOf(value);
      root.append(svg("line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom }),
        svg("text", { class: "tick", x: at, y: box.bottom + 15, "text-anchor": "middle" }, value.toFixed(x.decimals)));
    }
    const y = ticks(0, highest * 100, 2);
    for (const value of y.values) {
      for (const side of library ? [1, -1] : [1]) {
        if (value === 0 && side < 0) continue;
        const at = middle - (side * value * reach) / (highest * 100);
        root.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at }),
          svg("text", { class: "tick", x: box.left - 6, y: at + 3.5, "text-anchor": "end" }, value.toFixed(y.decimals)));
      }
    }
    root.append(svg("line", { class: "axis", x1: box.left, x2: box.right, y1: middle, y2: middle }),
      svg("text", { class: "axis-name", x: box.right, y: height - 8, "text-anchor": "end" }, "m/z"),
      svg("text", { class: "axis-name", x: -(box.top + box.bottom) / 2, y: 12, transform: "rotate(-90)", "text-anchor": "middle" }, "relative intensity, %"));
  }

  function drawPrecursors(box, middle) {
    for (const side of [1, -1]) {
      const mz = precursors[side];
      if (!Number.isFinite(mz) || mz < from || mz > to) continue;
      const [x, end] = [xOf(mz), side > 0 ? box.top : box.bottom];
      root.append(svg("line", { class: "precursor", x1: x, x2: x, y1: middle, y2: end }),
        svg("path", { class: "precursor-end", d: `M${x} ${end}l-5 ${-side * 8}h10z` }));
    }
  }

  function drawTitles(box) {
    const fit = (text) => { const most = Math.floor((box.right - box.left - 40) / 6.9); return text.length > most ? `${text.slice(0, most - 1)}…` : text; };
    root.append(svg("text", { class: "side-title", x: box.left, y: 15 }, fit(query.title)));
    if (library) root.append(svg("text", { class: "side-title", x: box.left, y: height - 8 }, fit(library.title)));
  }

  function showTip(end) {
    tip.hidden = !end;
    if (!end) return;
    tip.textContent = wordsOfMark(end.mark, precursors);
    const scale = frame.clientWidth / width;
    const left = Math.max(0, Math.min(frame.clientWidth - tip.offsetWidth, end.x * scale - tip.offsetWidth / 2));
    const top = end.side > 0 ? end.y * scale - tip.offsetHeight - 22 : end.y * scale + 22;
    tip.style.setProperty("left", `${left}px`);
    tip.style.setProperty("top", `${Math.max(0, Math.min(frame.clientHeight - tip.offsetHeight, top))}px`);
  }

  function point(event) {
    const bounds = root.getBoundingClientRect();
    return { x: ((event.clientX - bounds.left) / bounds.width) * width, y: ((event.clientY - bounds.top) / bounds.height) * height };
  }

  function nearest({ x, y }) {
    const side = !library || y < (MARGIN.top + height - MARGIN.bottom) / 2 ? 1 : -1;
    const near = marks.filter((mark) => mark.side === side && mark.mz >= from && mark.mz <= to)
      .map((mark) => ({ mark, far: Math.abs(xOf(mark.mz) - x) })).filter((one) => one.far < 14)
      .sort((a, b) => a.far - b.far || b.mark.share - a.mark.share);
    return near[0]?.mark ?? null;
  }

  const pointers = new Map();
  root.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    root.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, point(event).x);
    drag = pointers.size === 1 ? { from: point(event).x } : null;
  });
  root.addEventListener("pointermove", (event) => {
    const at = point(event);
    if (pointers.size === 2 && pointers.has(event.pointerId)) {
      const before = [...pointers.values()].sort((a, b) => a - b);
      pointers.set(event.pointerId, at.x);
      const after = [...pointers.values()].sort((a, b) => a - b);
      const factor = (after[1] - after[0]) / Math.max(1, before[1] - before[0]);
      if (factor > 0) zoom(factor, mzOf((after[0] + after[1]) / 2));
    } else if (drag) {
      if (drag.to !== undefined || Math.abs(at.x - drag.from) > 6) drag.to = Math.max(MARGIN.left, Math.min(width - MARGIN.right, at.x));
      current = null;
      draw();
    } else {
      const mark = nearest(at);
      if (mark !== current) {
        current = mark;
        draw();
      }
    }
  });
  function release(event) {
    pointers.delete(event.pointerId);
    const done = drag;
    drag = null;
    if (event.type === "pointerup" && done?.to !== undefined && Math.abs(done.to - done.from) > 6) {
      show(...[mzOf(done.from), mzOf(done.to)].sort((a, b) => a - b));
    } else if (done) {
      current = event.type === "pointerup" ? nearest(point(event)) : null;
      draw();
    }
  }
  root.addEventListener("pointerup", release);
  root.addEventListener("pointercancel", release);
  root.addEventListener("pointerleave", () => {
    if (!drag && current && document.activeElement !== frame) { current = null; draw(); }
  });
  root.addEventListener("dblclick", reset);
  root.addEventListener("wheel", (event) => {
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      if (isWhole()) return;
      const by = (event.deltaX / width) * (to - from);
      show(from + by, to + by);
    } else {
      if (event.deltaY > 0 && isWhole()) return; // nothing to zoom out of: the page scrolls on
      zoom(event.deltaY < 0 ? 1.25 : 0.8, mzOf(point(event).x));
    }
    event.preventDefault();
  }, { passive: false });

  function step(by) {
    const visible = marks.filter((mark) => mark.mz >= from && mark.mz <= to).sort((a, b) => a.mz - b.mz || b.side - a.side);
    if (!visible.length) return;
    const at = current ? visible.indexOf(current) + by : by > 0 ? 0 : visible.length - 1;
    current = visible[Math.max(0, Math.min(visible.length - 1, at))];
    draw();
    onSpeak(wordsOfMark(current, precursors));
  }

  frame.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const by = (to - from) / 5;
    const act = {
      "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), _: () => zoom(1 / 1.5), 0: reset, Home: reset,
      ArrowLeft: () => show(from - by, to - by), ArrowRight: () => show(from + by, to + by),
      ArrowUp: () => step(1), ArrowDown: () => step(-1),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
    if (!/Up|Down/.test(event.key)) onSpeak(`m/z ${fixed(from, 1)} to ${fixed(to, 1)}`);
  });

  const observer = new ResizeObserver(() => {
    if (!frame.clientWidth) return;
    width = Math.max(280, frame.clientWidth);
    height = library ? Math.max(300, Math.min(440, width * 0.55)) : 260;
    draw();
  });
  observer.observe(frame);
  draw();
  return { reset, zoom, marks, root, range: () => [from, to], destroy: () => observer.disconnect() };
}

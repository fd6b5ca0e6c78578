// The mirror plot as a file of its own: the look of each part written into it, on white.

const LOOK = {
  ground: { fill: "#ffffff" },
  grid: { stroke: "#e6e9ee", "stroke-width": 1 },
  axis: { stroke: "#3a4453", "stroke-width": 1 },
  tick: { fill: "#55606f", "font-size": 11 },
  "axis-name": { fill: "#55606f", "font-size": 11 },
  "side-title": { fill: "#1b2430", "font-size": 12, "font-weight": 600 },
  "peak-label": { fill: "#1b2430", "font-size": 10.5 },
  precursor: { stroke: "#8a6d00", "stroke-width": 1.2, "stroke-dasharray": "4 3" },
  "precursor-end": { fill: "#8a6d00" },
  stick: { stroke: "#8b95a3", "stroke-width": 1.5 },
};
const MATCHED = { fragment: "#0072b2", loss: "#d55e00" };

/** The text of an SVG file that needs no style sheet. */
export function exportedSvg(root) {
  const copy = root.cloneNode(true);
  const [, , width, height] = copy.getAttribute("viewBox").split(" ");
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.setAttribute("font-family", "Helvetica, Arial, sans-serif");
  copy.removeAttribute("class");
  copy.querySelectorAll(".brush").forEach((node) => node.remove());
  for (const node of copy.querySelectorAll("[class]")) {
    const classes = node.getAttribute("class").split(/\s+/);
    const look = Object.assign({}, ...classes.map((name) => LOOK[name] ?? {}));
    const kind = classes.find((name) => name in MATCHED);
    if (kind) look[classes.includes("stick") ? "stroke" : "fill"] = MATCHED[kind];
    for (const [name, value] of Object.entries(look)) node.setAttribute(name, value);
    node.removeAttribute("class");
  }
  return new XMLSerializer().serializeToString(copy);
}

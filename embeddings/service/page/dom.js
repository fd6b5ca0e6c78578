// Makes elements. Text from files and from the service becomes text nodes only: nothing here reads markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

/** An HTML element; `onclick` and the like are listeners, children are nodes or text. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** The element of the page with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Say something to a screen reader, politely. */
export function announce(words) {
  byId("status").textContent = words;
}

/** Arrow keys, Home and End move among `buttons`, of which one is in the tab order. */
export function rove(container, buttons, onMove = () => {}) {
  const list = [...buttons];
  const makeCurrent = (current) => list.forEach((button) => (button.tabIndex = button === current ? 0 : -1));
  makeCurrent(list.find((button) => button.getAttribute("aria-current") === "true") ?? list[0]);
  container.addEventListener("keydown", (event) => {
    const at = list.indexOf(event.target);
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: list.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = list[Math.max(0, Math.min(list.length - 1, to))];
    makeCurrent(next);
    next.focus();
    onMove(next);
  });
  container.addEventListener("focusin", (event) => {
    if (list.includes(event.target)) makeCurrent(event.target);
  });
}

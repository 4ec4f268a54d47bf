// What all views share: making elements, and covering the still picture that stands in for a dead view.

/** Return an element; `on…` attributes are listeners, children are nodes or text. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Return a style that hides the view's still picture for as long as the view itself is in the page. */
export function coverStill(model) {
  const style = h("style");
  const cover = () => {
    const still = model.get("hides");
    style.textContent = still ? `.${CSS.escape(still)} { display: none !important; }` : "";
  };
  return [style, follow(model, { "change:hides": cover })];
}

/** Run each listener now and whenever its event comes; return what ends that. */
export function follow(model, listeners) {
  for (const [event, listener] of Object.entries(listeners)) {
    model.on(event, listener);
    listener();
  }
  return () => Object.entries(listeners).forEach(([event, listener]) => model.off(event, listener));
}

export const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en-US"));

/** Four significant digits, with an exponent where it is shorter. */
export function brief(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace("e+", "e");
  return value.toLocaleString("en-US", { maximumSignificantDigits: 4 });
}

/** Seconds as "1 h 02 min", "3 min 20 s" or "12 s". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.round(seconds);
  const pad = (value) => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  const hours = Math.floor(whole / 3600);
  if (hours < 48) return `${hours} h ${pad(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

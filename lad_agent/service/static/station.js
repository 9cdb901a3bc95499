"use strict";
// The review station's keys, zoom and preloading. Pages work without it; it makes them fast.

const ZOOM = 3, LEAST = 1.25, CLOSEST = 12, STEP = 1.5, PAN = 0.15;

let view = { scale: 1, x: 0, y: 0 }; // x and y: shift of both pictures, in shares of a view
let busy = false;                    // a decision or a page is on its way
let inHand = null;                   // the review that this page claimed

const all = (selector) => [...document.querySelectorAll(selector)];
const one = (selector) => document.querySelector(selector);

// --- a new page, loaded or swapped in ------------------------------------------------------------

function begin() {
  busy = false;
  show({ scale: 1, x: 0, y: 0 });
  const item = one("[data-review]");
  for (const url of (item?.dataset.preload ?? "").split(" ").filter(Boolean)) new Image().src = url;
  const claimed = one(".claim") ? item.dataset.review : null;
  if (inHand && inHand !== claimed) release(inHand);
  inHand = claimed;
  if (one("#said")?.dataset.pending) firstEmpty().focus();
}

function release(review) {
  const csrf = one("[data-csrf]")?.dataset.csrf;
  if (!csrf) return; // an error page, or signed out: the lease runs out by itself
  const form = new FormData();
  form.set("csrf", csrf);
  navigator.sendBeacon(`/reviews/${review}/release`, form);
}

document.addEventListener("DOMContentLoaded", begin);
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.target === document.body) {
    // htmx leaves the focus in a field of the same name, where the next key would be a letter.
    one("#main")?.focus({ preventScroll: true });
    begin();
  }
  if (one("[data-held]")) all(".choices button").forEach((button) => { button.disabled = true; });
});
// A claim that was answered after its page was left.
document.addEventListener("htmx:afterRequest", (event) => {
  const late = event.detail.pathInfo.requestPath.match(/^\/reviews\/([^/]+)\/claim$/);
  if (late && late[1] !== inHand) release(late[1]);
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.boosted) busy = true;
});
document.addEventListener("htmx:sendError", () => {
  busy = false;
  tell("The service does not answer. Load the page again: it shows what was taken.");
});
window.addEventListener("pagehide", () => { if (inHand) release(inHand); });

// --- decisions -----------------------------------------------------------------------------------

// A finding against the reasoner needs a reason: ask for it before the page is sent.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[name=decision]");
  if (!button) return;
  const finding = button.value === "conforming" ? "conforming" : "nonconforming";
  const comment = one("#comment"), password = one("#password");
  const missing = button.form.dataset.reasonFor === finding && !comment.value.trim()
    ? [comment, "This goes against the reasoner: say why, then Enter."]
    : password && !password.value ? [password, "Sign with your password, then Enter."] : null;
  if (!missing) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  one("#said").dataset.pending = button.value;
  tell(missing[1]);
  missing[0].focus();
}, true);

function tell(words) {
  const said = one("#said") ?? one(".shift");
  said.textContent = words;
}

function firstEmpty() {
  const comment = one("#comment"), password = one("#password");
  return password && comment.value.trim() ? password : comment;
}

function pending() {
  const value = one("#said")?.dataset.pending;
  return value ? one(`button[name=decision][value="${value}"]`) : null;
}

function inField(event) {
  if (event.key === "Escape") {
    one("#said").dataset.pending = "";
    one("#said").textContent = "";
    event.target.blur();
  } else if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    if (one("#said").dataset.pending && !event.target.value.trim()) return;
    const button = pending();
    if (button && !busy) button.click();
    else event.target.blur();
  }
}

// --- keys ----------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  // A key held down must never decide about a second part.
  if (event.repeat && !event.key.startsWith("Arrow")) return;
  if (event.ctrlKey || event.metaKey || event.altKey || one("dialog[open]")) return;
  if (event.target.matches("#comment, #password")) return inField(event);
  if (event.target.matches("input:not([type=radio]), select")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (act(key, event.shiftKey)) event.preventDefault();
});

function act(key, shifted) {
  if (shifted && key.startsWith("Arrow")) return pan(key);
  if (key === "z") return zoomToPlace();
  if (key === "+" || key === "=") return zoom(STEP);
  if (key === "-") return zoom(1 / STEP);
  if (key === "o") return toggleOutlines();
  if (key === "n") return writeComment();
  if (/^[0-9]$/.test(key)) return chooseRule(key);
  const target = one(`[data-key="${CSS.escape(key)}"]`);
  if (!target || target.disabled) return false;
  if (!busy) target.click();
  return true;
}

function toggleOutlines() {
  one("[data-pictures]")?.classList.toggle("bare");
  return true;
}

function writeComment() {
  one("#comment")?.focus();
  return true;
}

function chooseRule(digit) {
  const radio = one(`input[data-digit="${digit}"]`);
  if (radio) radio.checked = true;
  return Boolean(radio);
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-help]")) one("#help").showModal();
  if (event.target.closest("[data-theme-toggle]")) toggleTheme();
  const shown = event.target.closest("[data-show-reference]");
  if (shown) {
    event.preventDefault();
    one("[data-reference]").src = shown.href;
  }
});

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
}

// --- zoom and pan, both pictures alike -------------------------------------------------------------

function show(next) {
  const scale = Math.min(CLOSEST, Math.max(1, next.scale));
  const within = (shift) => Math.min(0, Math.max(1 - scale, shift));
  view = { scale, x: within(next.x), y: within(next.y) };
  for (const stage of all("[data-stage]")) {
    stage.style.transform = `translate(${view.x * 100}%, ${view.y * 100}%) scale(${scale})`;
  }
}

function zoomAt(factor, x, y) {
  const scale = Math.min(CLOSEST, Math.max(1, view.scale * factor));
  const grown = scale / view.scale;
  show({ scale, x: x - (x - view.x) * grown, y: y - (y - view.y) * grown });
  return true;
}

function zoom(factor) {
  return zoomAt(factor, 0.5, 0.5);
}

function pan(key) {
  const [x, y] = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
  show({ ...view, x: view.x + x * PAN, y: view.y + y * PAN });
  return true;
}

function zoomToPlace() {
  if (view.scale > 1) {
    show({ scale: 1, x: 0, y: 0 });
    return true;
  }
  const frame = one("[data-view]")?.getBoundingClientRect();
  if (!frame) return false;
  const edges = all(".cells .fault .edge").map((edge) => edge.getBoundingClientRect());
  const span = (low, high, start, length) => edges.length
    ? [Math.min(...edges.map(low)), Math.max(...edges.map(high))].map((at) => (at - start) / length)
    : [0.5, 0.5];
  const [left, right] = span((edge) => edge.left, (edge) => edge.right, frame.left, frame.width);
  const [top, foot] = span((edge) => edge.top, (edge) => edge.bottom, frame.top, frame.height);
  const fitting = 0.9 / Math.max(right - left, foot - top);
  const scale = Math.min(ZOOM, Math.max(LEAST, fitting));
  show({ scale, x: 0.5 - (left + right) / 2 * scale, y: 0.5 - (top + foot) / 2 * scale });
  return true;
}

document.addEventListener("wheel", (event) => {
  const frame = event.target.closest?.("[data-view]")?.getBoundingClientRect();
  if (!frame) return;
  event.preventDefault();
  const x = (event.clientX - frame.left) / frame.width;
  const y = (event.clientY - frame.top) / frame.height;
  zoomAt(event.deltaY < 0 ? STEP : 1 / STEP, x, y);
}, { passive: false });

document.addEventListener("pointerdown", (event) => {
  const target = event.target.closest("[data-view]");
  if (!target || view.scale === 1) return;
  const frame = target.getBoundingClientRect();
  const from = { ...view, left: event.clientX, top: event.clientY };
  const move = (moved) => show({
    scale: from.scale,
    x: from.x + (moved.clientX - from.left) / frame.width,
    y: from.y + (moved.clientY - from.top) / frame.height,
  });
  target.setPointerCapture(event.pointerId);
  target.addEventListener("pointermove", move);
  target.addEventListener("lostpointercapture", () => target.removeEventListener("pointermove", move), { once: true });
});

document.addEventListener("dblclick", (event) => {
  if (event.target.closest("[data-view]")) zoomToPlace();
});

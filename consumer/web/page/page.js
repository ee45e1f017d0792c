"use strict";
// Puts what the server sends, which is escaped HTML by element id, into the page, and writes its times.
const stream = document.body.dataset.stream;
const status = document.getElementById("status");
const pause = document.getElementById("pause");
const zone = document.getElementById("zone");
const ownZone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const held = new Map();
let source = null;
let aheadMs = Number(document.body.dataset.now) - Date.now();
let isLocal = recall() === "local";

// The reader's choice of the zone outlasts the page where the browser keeps data for pages.
function recall() {
  try { return localStorage.getItem("zone"); } catch { return null; }
}

function remember(value) {
  try { localStorage.setItem("zone", value); } catch { /* it lasts as long as the page */ }
}

function say(text) {
  if (status.textContent !== text) status.textContent = text;
}

function exact(date) {
  const shifted = isLocal ? new Date(date.getTime() - date.getTimezoneOffset() * 60_000) : date;
  return shifted.toISOString().slice(0, -1).split("T");
}

function relative(date) {
  const ms = Date.now() + aheadMs - date.getTime();
  const seconds = Math.floor(Math.abs(ms) / 1000);
  const units = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];
  const first = Math.max(0, units.findIndex(([length]) => seconds >= length));
  const parts = seconds < 1 ? ["0 s"] : [];
  let left = seconds;
  for (const [length, unit] of seconds < 1 ? [] : units.slice(first, first + (seconds >= 3_600 ? 2 : 1))) {
    if (left >= length) parts.push(`${Math.floor(left / length)} ${unit}`);
    left %= length;
  }
  return ms < -999 ? `in ${parts.join(" ")}` : parts.join(" ");
}

function writeTime(element) {
  const date = new Date(element.dateTime);
  if (Number.isNaN(date.getTime())) return;
  const [day, clock] = exact(date);
  const zoneName = isLocal ? ownZone : "UTC";
  if (element.classList.contains("age")) {
    const text = relative(date) + (element.classList.contains("ago") ? " ago" : "");
    if (element.textContent !== text) element.textContent = text;
    element.title = `${day} ${clock} ${zoneName}`;
  } else {
    const inner = document.createElement("span");
    inner.className = "clock";
    inner.textContent = clock;
    element.replaceChildren(`${day} `, inner);
    element.title = `${zoneName}, ${relative(date)} ago`;
  }
}

function enliven(root) {
  root.querySelectorAll("time").forEach(writeTime);
  root.querySelectorAll(".copy").forEach((button) => { button.hidden = false; });
}

// A selector of an element that is written again.
function findAgain(element) {
  if (element.tagName === "SUMMARY") return `#${CSS.escape(element.parentElement.id)} > summary`;
  const name = ["href", "data-copy"].find((attribute) => element.hasAttribute(attribute));
  return name ? `[${name}="${CSS.escape(element.getAttribute(name))}"]` : null;
}

function put(id, html) {
  const element = document.getElementById(id);
  if (element === null) return;
  if (element.classList.contains("hold") && element.matches(":hover") && matchMedia("(hover: hover)").matches) {
    held.set(id, html);
    element.classList.add("held");
    return;
  }
  const focused = document.activeElement;
  const isInside = element.contains(focused) && focused !== element;
  const kept = isInside ? findAgain(focused) : null;
  const opened = [...element.querySelectorAll("details[open]")].map((details) => details.id);
  element.innerHTML = html;
  for (const name of opened) document.getElementById(name)?.setAttribute("open", "");
  enliven(element);
  if (kept) element.querySelector(kept)?.focus({ preventScroll: true });
}

function release(element) {
  element.classList.remove("held");
  const html = held.get(element.id);
  held.delete(element.id);
  if (html !== undefined) put(element.id, html);
}

function follow() {
  source = new EventSource(stream);
  source.onerror = () => say("Not connected: this page may be out of date.");
  source.onmessage = (event) => {
    const { now, ...parts } = JSON.parse(event.data);
    aheadMs = Number(now) - Date.now();
    for (const [id, html] of Object.entries(parts)) put(id, html);
  };
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea"); // over plain HTTP there is no clipboard
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy");
  if (button === null) return;
  await copy(button.dataset.copy);
  button.classList.add("copied");
  setTimeout(() => button.classList.remove("copied"), 1500);
});

document.querySelectorAll(".hold").forEach((element) => element.addEventListener("pointerleave", () => release(element)));

function nameZone() {
  zone.textContent = `Times: ${isLocal ? ownZone : "UTC"}`;
}

if (zone) {
  zone.hidden = false;
  zone.addEventListener("click", () => {
    isLocal = !isLocal;
    remember(isLocal ? "local" : "utc");
    nameZone();
    enliven(document);
  });
  nameZone();
}
enliven(document);
setInterval(() => document.querySelectorAll("time.age").forEach(writeTime), 1000);

if (stream) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    const pausing = source !== null;
    if (pausing) {
      source.close();
      source = null;
      say("Paused.");
    } else {
      follow();
    }
    pause.setAttribute("aria-pressed", String(pausing));
  });
  follow();
}

"use strict";
// Puts what the server sends, which is escaped HTML by element id, into the page.
const stream = document.body.dataset.stream;
const status = document.getElementById("status");
const pause = document.getElementById("pause");
let source = null;

function say(text) {
  if (status.textContent !== text) status.textContent = text;
}

function put(id, html) {
  const element = document.getElementById(id);
  const focused = document.activeElement;
  const link = element.contains(focused) && focused !== element ? focused.getAttribute("href") : null;
  element.innerHTML = html;
  if (link !== null) element.querySelector(`a[href="${CSS.escape(link)}"]`)?.focus({ preventScroll: true });
}

function follow() {
  source = new EventSource(stream);
  source.onerror = () => say("Not connected: this page may be out of date.");
  source.onmessage = (event) => {
    for (const [id, html] of Object.entries(JSON.parse(event.data))) put(id, html);
  };
}

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

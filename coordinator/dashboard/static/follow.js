// Keeps the part of a page that follows a round current. Without scripts, load the page again.
"use strict";
(function () {
  const part = document.querySelector("[data-follow]");
  if (!part) return;
  const note = document.createElement("p");
  note.className = "note";
  note.setAttribute("role", "status");
  part.before(note);
  let shown = null;

  async function look() {
    if (document.hidden || part.contains(document.activeElement)) return true;
    let answer;
    try {
      answer = await fetch(part.dataset.follow, { redirect: "error" });
    } catch {
      note.textContent = "The dashboard does not answer; this page shows what was last known.";
      return true;
    }
    if (answer.status === 401) {
      note.textContent = "You were signed out. Load the page again to sign in.";
      return false;
    }
    const text = await answer.text();
    if (!answer.ok) return true;
    note.textContent = "";
    if (text !== shown) {
      const open = [...part.querySelectorAll("details")].map((one) => one.open);
      part.innerHTML = text;
      part.querySelectorAll("details").forEach((one, i) => { if (open[i]) one.open = true; });
    }
    shown = text;
    return true;
  }

  (async function follow() {
    while (await look()) await new Promise((done) => setTimeout(done, 4000));
  })();
})();

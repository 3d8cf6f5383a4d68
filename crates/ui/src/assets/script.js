// What pages do beyond showing: numbers that change, keys, a theme. They do without it.
"use strict";
(() => {
  const root = document.documentElement;
  const remembered = () => { try { return localStorage.getItem("doorbell-theme"); } catch { return null; } };
  const wear = (theme) => { if (theme) { root.dataset.theme = theme; } else { delete root.dataset.theme; } };
  wear(remembered());

  // ---- Live

  // A piece of a page out of what the server wrote; rows only stand in tables.
  const piece = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content.firstElementChild;
  };

  // Replaces an element that is another now, and leaves the focus where it was.
  const replace = (old, html) => {
    const fresh = piece(html);
    if (old.isEqualNode(fresh)) { return old; }
    const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    old.replaceWith(fresh);
    if (focused !== null) {
      [...fresh.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
    }
    return fresh;
  };

  const show = (change, state) => {
    if (change.away) { state.say("The database does not answer. These numbers are from " + state.last() + "."); return; }
    state.say("live");
    for (const [id, html] of Object.entries(change.parts)) {
      const old = document.getElementById(id);
      if (old) { replace(old, html); }
    }
    if (!change.rows) { return; }
    const body = document.querySelector("#targets tbody");
    // The first target of all: the table is not there yet.
    if (!body) { if (change.rows.length > 0) { location.reload(); } return; }
    const rows = new Map([...body.rows].map((row) => [row.dataset.target, row]));
    let before = null;
    for (const [name, html] of change.rows) {
      let row = rows.get(name);
      rows.delete(name);
      if (row && html) { row = replace(row, html); } else if (!row) { row = piece(html); }
      const place = before ? before.nextElementSibling : body.firstElementChild;
      if (place !== row) { body.insertBefore(row, place); }
      before = row;
    }
    rows.forEach((row) => row.remove());
  };

  const live = document.getElementById("live");
  if (live) {
    let source = null;
    let seen = new Date();
    const state = {
      say: (text) => { if (live.textContent !== text) { live.textContent = text; root.classList.toggle("old", text !== "live"); } },
      last: () => seen.toLocaleTimeString(),
    };
    const close = () => { source?.close(); source = null; };
    const open = () => {
      if (source || document.hidden) { return; }
      source = new EventSource(live.dataset.source);
      source.onmessage = (event) => {
        const change = JSON.parse(event.data);
        show(change, state);
        if (!change.away) { seen = new Date(); }
      };
      source.onerror = () => {
        state.say("Doorbell does not answer. These numbers are from " + state.last() + ".");
        // By itself it tries again only where nobody answered at all.
        if (source && source.readyState === EventSource.CLOSED) { close(); setTimeout(open, 2000); }
      };
    };
    document.addEventListener("visibilitychange", () => { if (document.hidden) { close(); } else { open(); } });
    addEventListener("pagehide", close);
    addEventListener("pageshow", open);
    open();
  }

  // A page that says that the database is away looks again.
  if (document.getElementById("away")) { setTimeout(() => location.reload(), 5000); }

  // ---- Keys

  const places = { o: "./", t: "targets", m: "messages", d: "dead-letters", k: "keys", p: "topics", s: "schedules", c: "consumers", b: "breakers", r: "rights", h: "doctor", a: "audit" };
  let going = false;
  // The links of rows; the first link of each.
  const step = (by) => {
    const links = [...document.querySelectorAll("tbody tr, .troubles li")].map((row) => row.querySelector("a")).filter(Boolean);
    const at = links.findIndex((link) => link.closest("tr, li").contains(document.activeElement));
    links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + by))]?.focus();
  };
  document.addEventListener("keydown", (event) => {
    const writing = event.target.closest("input:not([type=checkbox]), select, textarea");
    if (event.key === "Escape" && writing) { writing.blur(); return; }
    if (writing || event.ctrlKey || event.metaKey || event.altKey) { return; }
    if (going) {
      going = false;
      if (Object.hasOwn(places, event.key)) { location.href = places[event.key]; }
      return;
    }
    switch (event.key) {
      case "/": document.getElementById("find")?.focus(); event.preventDefault(); break;
      case "g": going = true; break;
      case "j": step(1); break;
      case "k": step(-1); break;
      case "x": event.target.closest("tr")?.querySelector("input[type=checkbox]")?.click(); break;
      case "t": {
        const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
        const theme = dark ? "light" : "dark";
        wear(theme);
        try { localStorage.setItem("doorbell-theme", theme); } catch { /* not remembered */ }
        break;
      }
    }
  });
})();

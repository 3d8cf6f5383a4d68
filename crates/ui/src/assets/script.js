// What pages do beyond showing: numbers that change, keys, a theme. They do without it.
"use strict";
(() => {
  const root = document.documentElement;
  const remembered = () => { try { return localStorage.getItem("doorbell-theme"); } catch { return null; } };
  const wear = (theme) => { if (theme) { root.dataset.theme = theme; } else { delete root.dataset.theme; } };
  wear(remembered());

  // ---- Times and what can be copied

  // Ages go by the server's clock: this one may be wrong.
  const ahead = Date.now() - Number(root.dataset.now || Date.now());
  const isApart = Math.abs(ahead) > 30000;
  const inWords = (seconds) => {
    const [unit, size] = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, size]) => seconds >= size) ?? ["s", 1];
    return Math.floor(seconds / size) + " " + unit;
  };
  const ago = (time) => {
    const seconds = (Date.now() - (isApart ? ahead : 0) - Date.parse(time.dateTime)) / 1000;
    return seconds < 0 ? "in " + inWords(-seconds) : inWords(seconds) + " ago";
  };
  const dress = (part) => {
    for (const time of part.querySelectorAll("time")) { time.dataset.ago = ago(time); }
    for (const text of part.querySelectorAll(".typed, [data-copy]")) {
      if (text.nextElementSibling?.className === "copy") { continue; }
      const button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = "Copy";
      button.setAttribute("aria-label", "Copy " + (text.querySelector("bdi") ?? text).textContent);
      text.after(button);
    }
  };
  document.addEventListener("click", async (event) => {
    if (event.target.className !== "copy") { return; }
    const [button, text] = [event.target, event.target.previousElementSibling];
    const copied = text.querySelector("bdi") ?? text;
    getSelection().selectAllChildren(copied);
    // Browsers let pages write there only on this machine and over TLS; what is selected can be copied everywhere.
    try { await navigator.clipboard.writeText(copied.textContent); button.textContent = "Copied"; } catch { button.textContent = "Ctrl+C"; }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  dress(document);
  setInterval(() => { if (!document.hidden) { dress(document); } }, 10000);
  if (isApart) {
    const warning = document.createElement("p");
    warning.id = "apart";
    warning.className = "mood uneasy";
    warning.textContent = "This browser's clock is " + inWords(Math.abs(ahead) / 1000) + (ahead > 0 ? " ahead of" : " behind") +
      " the server's. Times are the server's, and ages go by its clock.";
    document.querySelector("main").prepend(warning);
  }

  // ---- Live

  // A piece of a page out of what the server wrote; rows only stand in tables.
  const piece = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    dress(template.content);
    return template.content.firstElementChild;
  };

  // Puts another in the place of an element, if it is another, and leaves the focus where it was; of a row cell by cell, so
  // that what somebody has opened or is writing stays.
  const exchange = (old, fresh) => {
    const [was, is] = [old, fresh].map((part) => [...part.querySelectorAll("details")]);
    is.forEach((details, at) => { details.open = was[at]?.open ?? false; });
    if (old.isEqualNode(fresh)) { return old; }
    if (old.localName === "tr" && old.cells.length === fresh.cells.length) {
      old.className = fresh.className;
      [...fresh.cells].forEach((cell, at) => exchange(old.cells[at], cell));
      return old;
    }
    const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    old.replaceWith(fresh);
    if (focused !== null) {
      [...fresh.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
    }
    return fresh;
  };
  const replace = (old, html) => { dress(old.parentElement); return exchange(old, piece(html)); };

  const show = (change, state) => {
    if (change.away) { state.say("The database does not answer. These numbers are from " + state.last() + "."); return; }
    state.say("live");
    for (const [id, html] of Object.entries(change.parts)) {
      const old = document.getElementById(id);
      if (old) { replace(old, html); }
    }
    if (!change.rows) { return; }
    const body = document.querySelector("[data-rows] tbody");
    // The first line of all, or none any more: the page says so in other words.
    if (!body || change.rows.length === 0) { if (!body !== (change.rows.length === 0)) { location.reload(); } return; }
    const rows = new Map([...body.rows].map((row) => [row.dataset.row, row]));
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

  const places = { o: "./", t: "targets", m: "messages", d: "dead-letters", k: "keys", p: "topics", s: "schedules", c: "consumers", b: "breakers", r: "rights", q: "requests", l: "captures", h: "doctor", a: "audit" };
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

"use strict";
// Sounds: one plays at a time, and the next clip of the same item goes on where the last one was.
const play = (clip) => clip.play().catch(() => {}); // the next one may begin before this one has
const clips = (group) => [...group.querySelectorAll("audio")];

function switchTo(group, clip, from) {
  if (!clip || clip === from) return;
  const playing = from && !from.paused;
  const seconds = from ? from.currentTime : 0;
  if (from) from.pause();
  group.before = from;
  group.current = clip;
  mark(group);
  const start = () => {
    clip.currentTime = Math.min(seconds, clip.duration || seconds);
    if (playing) play(clip);
  };
  if (clip.readyState > 0) start();
  else {
    clip.addEventListener("loadedmetadata", start, { once: true });
    clip.load();
  }
}

function mark(group) {
  for (const clip of clips(group)) clip.parentElement.classList.toggle("now", clip === group.current);
  group.current.parentElement.scrollIntoView({ block: "nearest" });
}

for (const group of document.querySelectorAll(".item")) {
  group.addEventListener(
    "play",
    (event) => {
      for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
      if (group.current !== event.target) {
        group.before = group.current;
        group.current = event.target;
        mark(group);
      }
    },
    true,
  );
  group.addEventListener(
    "keydown",
    (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const all = clips(group);
      if (!all.length) return;
      const now = group.current || all[0];
      const at = all.indexOf(now);
      const keys = {
        " ": () => (now.paused ? play(now) : now.pause()),
        ArrowRight: () => switchTo(group, all[(at + 1) % all.length], now),
        ArrowLeft: () => switchTo(group, all[(at + all.length - 1) % all.length], now),
        b: () => switchTo(group, group.before, now),
        Home: () => (now.currentTime = 0),
      };
      const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!act) return;
      event.preventDefault();
      event.stopPropagation();
      group.current = now;
      mark(group);
      act();
    },
    true,
  );
}

// Tables: rows whose name holds the words, and rows in the order of a column. Numbers go before what is none.
for (const field of document.querySelectorAll("input[type=search]")) {
  field.closest(".filter").hidden = false;
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of field.closest("section").querySelectorAll("table.sortable tbody tr")) {
      const name = row.cells[0].textContent.toLowerCase();
      row.hidden = !words.every((word) => name.includes(word));
    }
  });
}

const value = (row, column) => {
  const cell = row.cells[column];
  const text = (cell.dataset.value ?? cell.textContent).trim();
  const number = Number.parseFloat(text.replace("\u2212", "-").replace(/[,\u25c7 ]/g, ""));
  return Number.isNaN(number) ? text.toLowerCase() : number;
};
const compare = (a, b) =>
  typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", (event) => {
      if (event.target.closest("a")) return;
      const rising = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      for (const body of table.tBodies) {
        const rows = [...body.rows].map((row) => [value(row, column), row]);
        rows.sort(([a], [b]) => (rising ? compare(a, b) : compare(b, a)));
        body.append(...rows.map(([, row]) => row));
      }
    });
  });
}

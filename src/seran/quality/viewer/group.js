"use strict";
// Rows of many scans: shown by verdict and by words, sorted by a column.
const body = document.querySelector("#scans tbody");
const rows = [...body.rows];
const boxes = [...document.querySelectorAll("#controls input[type=checkbox]")];
const words = document.getElementById("words");
const seen = document.getElementById("seen");

function show() {
  const states = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  const wanted = words.value.toLowerCase().split(/\s+/);
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !states.has(row.dataset.state) || !wanted.every((word) => text.includes(word));
    count += !row.hidden;
  }
  seen.textContent = `${count} of ${rows.length} shown`;
}

const value = (row, column) => row.cells[column].dataset.rank ?? row.cells[column].textContent;
const letters = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  const [x, y] = [parseFloat(a), parseFloat(b)];
  if (isNaN(x) !== isNaN(y)) return isNaN(x) - isNaN(y); // what is no number comes last
  return (isNaN(x) ? 0 : x - y) || letters.compare(a, b);
}

function sort(head) {
  const falling = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const turn = falling ? -1 : 1, column = head.cellIndex;
  rows.sort((a, b) => turn * compare(value(a, column), value(b, column)));
  body.append(...rows);
}

for (const head of document.querySelectorAll("#scans thead th")) {
  head.querySelector("button").addEventListener("click", () => sort(head));
}
for (const control of [...boxes, words]) control.addEventListener("input", show);
document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
show();

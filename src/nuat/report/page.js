"use strict";
// The page is complete without this script: it sorts and saves the table, and switches the colors.

const table = document.getElementById("results");
const body = table.tBodies[0];
const headings = [...table.tHead.rows[0].cells];

// The text of a cell: the lines of a heading are separated by spaces.
function text(cell) {
  return cell.innerText.replace(/\s+/g, " ").trim();
}

// Numbers sort as numbers, unknown values last, everything else as text.
function compare(a, b) {
  const numbers = [a, b].map((value) => parseFloat(value.replaceAll(",", "")));
  const known = numbers.map(Number.isFinite);
  if (known[0] && known[1]) return numbers[0] - numbers[1];
  if (known[0] !== known[1]) return known[0] ? -1 : 1;
  return a.localeCompare(b);
}

function sortBy(column) {
  const heading = headings[column];
  const first = heading.classList.contains("number") ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  const sign = order === "ascending" ? 1 : -1;
  const isUnknown = (row) => text(row.cells[column]) === "\u2013";
  const rows = [...body.rows].sort((a, b) =>
    isUnknown(a) - isUnknown(b) || sign * compare(text(a.cells[column]), text(b.cells[column])));
  headings.forEach((each) => each.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", order);
  body.append(...rows);
}

headings.forEach((heading, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  button.addEventListener("click", () => sortBy(column));
  heading.append(button);
});

function lines() {
  return [...table.rows].map((row) => [...row.cells].map(text));
}

function asCsv() {
  const quote = (cell) => (/[",]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  return lines().map((row) => row.map(quote).join(",")).join("\n") + "\n";
}

function asMarkdown() {
  const cells = (row) => `| ${row.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  const [head, ...rows] = lines();
  const rule = headings.map((each) => (each.classList.contains("number") ? "--:" : "---"));
  return [cells(head), `|${rule.join("|")}|`, ...rows.map(cells)].join("\n") + "\n";
}

for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", () => {
    const kind = button.dataset.save;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([kind === "csv" ? asCsv() : asMarkdown()]));
    link.download = `results.${kind}`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
document.querySelector(".tools").hidden = false;

const theme = document.querySelector(".theme");
const root = document.documentElement;
function showTheme(name) {
  root.dataset.theme = name;
  theme.textContent = name === "dark" ? "light" : "dark";
  theme.setAttribute("aria-label", `switch to ${theme.textContent} colors`);
}
showTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
theme.addEventListener("click", () => showTheme(theme.textContent));
theme.hidden = false;

// Sorting and filtering; without this script the page says the same.
(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // --- sorting ---------------------------------------------------------------------------------
  const texts = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const valueOf = (cell) => (cell.dataset.v ?? cell.textContent).trim();
  const numberOf = (cell) => {
    const number = parseFloat(valueOf(cell).replace("−", "-"));
    return Number.isNaN(number) ? null : number;
  };
  const say = document.createElement("p");
  say.className = "skip";
  say.setAttribute("role", "status");
  document.body.append(say);

  const sort = (header) => {
    const table = header.closest("table"), body = table.tBodies[0];
    const column = [...header.parentNode.children].indexOf(header);
    const isText = header.dataset.sort === "t", now = header.getAttribute("aria-sort");
    const first = isText || header.textContent.trim() === "rank" ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = now === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row, place) => {
      const cell = row.cells[column];
      return { row, place, value: isText ? valueOf(cell) : numberOf(cell) };
    });
    rows.sort((a, b) => {
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.place - b.place;
      return sign * (isText ? texts.compare(a.value, b.value) : a.value - b.value) || a.place - b.place;
    });
    body.append(...rows.map((item) => item.row));
    for (const one of header.parentNode.children) one.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
    say.textContent = `Sorted by ${header.textContent.trim()}, ${order}`;
  };

  for (const header of all("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(header));
  }

  // --- filtering -------------------------------------------------------------------------------
  const form = document.querySelector(".filters");
  if (!form) return;
  form.hidden = false;
  const fields = { q: "text", status: "status", norm: "norm", against: "adversary" };
  const field = (name) => document.getElementById(`filter-${fields[name]}`);
  const count = document.getElementById("filter-count");

  const models = new Map();
  for (const row of all("tr[data-e]")) {
    const model = models.get(row.dataset.e) ?? { rows: [], text: "" };
    model.rows.push(row);
    models.set(row.dataset.e, model);
    if (row.dataset.s !== undefined) {
      model.status = row.dataset.s;
      model.against = row.dataset.a;
      model.norm = row.closest("section").dataset.norm;
    }
    model.text += ` ${all("th, td.text", row).map((cell) => cell.textContent).join(" ")}`;
  }
  for (const model of models.values()) model.text = model.text.toLowerCase();

  const filter = () => {
    const wanted = Object.fromEntries(Object.keys(fields).map((name) => [name, field(name).value]));
    const words = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const model of models.values()) {
      const fits = words.every((word) => model.text.includes(word))
        && ["status", "norm", "against"].every((name) => !wanted[name] || model[name] === wanted[name]);
      shown += fits;
      for (const row of model.rows) row.hidden = !fits;
    }
    const isOn = Object.values(wanted).some(Boolean);
    for (const section of all("section.board")) {
      section.hidden = isOn && !section.querySelector("tr[data-s]:not([hidden])");
    }
    count.textContent = isOn ? `${shown} of ${models.size} models` : "";
    const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
    history.replaceState(null, "", isOn ? `#?${query}` : location.pathname + location.search);
  };

  const restore = () => {
    if (!location.hash.startsWith("#?")) return;
    const query = new URLSearchParams(location.hash.slice(2));
    for (const name of Object.keys(fields)) field(name).value = query.get(name) ?? "";
    filter();
  };

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  restore();
})();

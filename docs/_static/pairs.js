// The table of pairs: filters by p, q, method and text, and sorts by a column.
(() => {
  const HEAD = ["p", "q", "method", "finite if", "error", "reference"];
  const FIRST = 150; // rows shown before "show all"
  const root = document.getElementById("pairs");
  const form = root.querySelector("form");
  const body = root.querySelector("tbody");
  const more = root.querySelector(".pairs-more");
  const { rows, links } = window.PAIRS;
  let order = { column: 0, down: false };
  let all = false;

  const element = (name, text) => {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  };

  const named = (name) => {
    if (!links[name]) return element("span", name);
    const link = element("a", name);
    link.href = links[name];
    return link;
  };

  // --- what is shown ---

  const value = (row) => (order.column === 4 ? Number(row[4] || 0) : row[order.column].toLowerCase());

  const matching = () => {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    return rows.filter(
      (row) =>
        (!form.elements.p.value || row[0] === form.elements.p.value) &&
        (!form.elements.q.value || row[1] === form.elements.q.value) &&
        (!form.elements.method.value || row[2] === form.elements.method.value) &&
        words.every((word) => row.join(" ").toLowerCase().includes(word)),
    );
  };

  const show = () => {
    const found = matching();
    found.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      return (x < y ? -1 : x > y ? 1 : 0) * (order.down ? -1 : 1);
    });
    const shown = all ? found : found.slice(0, FIRST);
    body.replaceChildren(
      ...shown.map((row) => {
        const line = document.createElement("tr");
        row.forEach((text, column) => {
          const cell = document.createElement("td");
          cell.dataset.head = HEAD[column];
          cell.append(column < 2 ? named(text) : element("span", text || "-"));
          line.append(cell);
        });
        return line;
      }),
    );
    const part = shown.length < found.length ? `; the first ${shown.length} are shown` : "";
    root.querySelector(".pairs-count").textContent = `${found.length} of ${rows.length} pairs${part}`;
    more.hidden = shown.length === found.length;
  };

  // --- the heads sort ---

  const heads = HEAD.map((title, column) => {
    const head = document.createElement("th");
    head.scope = "col";
    const button = element("button", title);
    button.type = "button";
    button.addEventListener("click", () => {
      order = { column, down: order.column === column && !order.down };
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      show();
    });
    head.append(button);
    root.querySelector("thead tr").append(head);
    return head;
  });
  heads[0].setAttribute("aria-sort", "ascending");

  // --- the filters; pairs.html?p=Gamma&method=quadrature sets them ---

  ["p", "q", "method"].forEach((name, column) => {
    const choices = [...new Set(rows.map((row) => row[column]))].sort();
    form.elements[name].append(...choices.map((choice) => element("option", choice)));
  });
  for (const [name, given] of new URLSearchParams(location.search)) {
    if (form.elements[name]) form.elements[name].value = given;
  }
  form.addEventListener("input", () => { all = false; show(); });
  form.addEventListener("reset", () => setTimeout(show));
  more.addEventListener("click", () => { all = true; show(); });
  show();
})();

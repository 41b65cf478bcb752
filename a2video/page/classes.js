'use strict';
// Sorting and searching the table of classes.
(() => {
  const table = document.getElementById('classes');
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const search = document.getElementById('search');
  const shown = document.getElementById('num-shown');
  const buttons = [...table.querySelectorAll('button[data-key]')];
  const collator = new Intl.Collator('en', { numeric: true });
  const name = (row) => row.cells[0].textContent;
  document.documentElement.classList.add('has-script');

  const numbers = (key, sign) => (a, b) => {
    const [first, second] = [a.dataset[key], b.dataset[key]];
    if (first === '' || second === '') return (first === '') - (second === ''); // without a number: always last
    return sign * (Number(first) - Number(second));
  };

  function sort(button) {
    const head = button.closest('th');
    const { key } = button.dataset;
    const isRising = head.getAttribute('aria-sort') === 'none' ? key !== 'count' : head.getAttribute('aria-sort') === 'descending';
    for (const other of buttons) other.closest('th').setAttribute('aria-sort', 'none');
    head.setAttribute('aria-sort', isRising ? 'ascending' : 'descending');
    const sign = isRising ? 1 : -1;
    const compare = key === 'name' ? (a, b) => sign * collator.compare(name(a), name(b)) : numbers(key, sign);
    body.append(...[...rows].sort(compare));
  }

  for (const button of buttons) button.addEventListener('click', () => sort(button));
  search.addEventListener('input', () => {
    const wanted = search.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !name(row).toLowerCase().includes(wanted);
    shown.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  });
})();

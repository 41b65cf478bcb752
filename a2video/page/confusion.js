// What a cell of the confusion matrix says, for pointers, fingers and arrow keys.
(() => {
  const matrix = document.getElementById('matrix');
  if (matrix === null) return;
  const SNAP = 9; // pixels: where cells are smaller than a finger, the nearest one that is not empty is meant
  const { names, cells } = JSON.parse(document.getElementById('confusion-data').textContent);
  const size = names.length;
  const rows = names.map(() => new Map());
  for (const [truth, predicted, count] of cells) rows[truth].set(predicted, count);
  const totals = rows.map((row) => [...row.values()].reduce((sum, count) => sum + count, 0));
  const picture = matrix.querySelector('img');
  let current = null;

  const percent = (share) => `${(100 * share).toFixed(1)}%`;
  const videos = (count) => `${count} ${count === 1 ? 'video' : 'videos'}`;

  function bold(text) {
    const element = document.createElement('strong');
    element.className = 'name';
    element.textContent = text;
    return element;
  }

  function show(truth, predicted) {
    current = [truth, predicted];
    const count = rows[truth].get(predicted) ?? 0;
    const total = totals[truth];
    const share = total ? ` (${percent(count / total)})` : '';
    const text = `: ${count} of its ${videos(total)}${share}`;
    document.getElementById('cell').replaceChildren('True ', bold(names[truth]), ', predicted ', bold(names[predicted]), text);
    const others = [...rows[truth]].sort((a, b) => b[1] - a[1]).slice(0, 5);
    const list = others.map(([place, number]) => `${names[place]} ${number}`).join(', ');
    document.getElementById('others').textContent = total ? `All of that row: ${list}${rows[truth].size > 5 ? ', …' : ''}` : '';
    mark(truth, predicted);
  }

  function mark(truth, predicted) {
    if (picture === null) {
      for (const cell of matrix.querySelectorAll('.current')) cell.classList.remove('current');
      matrix.querySelector(`[data-cell="${truth},${predicted}"]`).classList.add('current');
      return;
    }
    const [row, column] = ['.band.row', '.band.column'].map((name) => matrix.querySelector(name));
    row.hidden = column.hidden = false;
    row.style.top = `${(100 * truth) / size}%`;
    column.style.left = `${(100 * predicted) / size}%`;
    row.style.height = column.style.width = `${100 / size}%`;
  }

  function cellAt(event) {
    if (picture === null) {
      const cell = event.target.closest('[data-cell]');
      return cell && cell.dataset.cell.split(',').map(Number);
    }
    const box = picture.getBoundingClientRect();
    const side = box.width / size;
    const place = [(event.clientY - box.top) / side, (event.clientX - box.left) / side];
    const exact = place.map((value) => Math.min(size - 1, Math.max(0, Math.floor(value))));
    return side >= SNAP || rows[exact[0]].has(exact[1]) ? exact : (nearest(place, SNAP / side) ?? exact);
  }

  function nearest([y, x], reach) {
    let best = null;
    let smallest = reach;
    for (const [truth, predicted] of cells) {
      const distance = Math.hypot(truth + 0.5 - y, predicted + 0.5 - x);
      if (distance < smallest) [best, smallest] = [[truth, predicted], distance];
    }
    return best;
  }

  function point(event) {
    const cell = cellAt(event);
    if (cell && (current === null || cell[0] !== current[0] || cell[1] !== current[1])) show(...cell);
  }

  const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  matrix.addEventListener('pointermove', (event) => event.pointerType === 'mouse' && point(event));
  matrix.addEventListener('click', point);
  matrix.addEventListener('keydown', (event) => {
    const move = MOVES[event.key];
    if (move === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const step = event.shiftKey ? 10 : 1;
    const next = move.map((way, axis) => (current === null ? 0 : current[axis] + step * way));
    show(...next.map((value) => Math.min(size - 1, Math.max(0, value))));
  });
  document.getElementById('enlarge')?.addEventListener('click', (event) => {
    const isLarge = matrix.classList.toggle('large');
    matrix.style.width = isLarge ? `${Math.max(900, 5 * size)}px` : '';
    event.target.setAttribute('aria-pressed', isLarge);
    event.target.textContent = isLarge ? 'Fit to the page' : 'Enlarge';
  });
})();

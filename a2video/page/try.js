'use strict';
// What the page shows: a chosen video, and what the network makes of it.
const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const seconds = (value) => `${value.toFixed(1)} s`;

const shown = (() => {
  const preview = element('preview');
  let address = null; // of the file in the preview
  preview.addEventListener('error', () => {
    preview.hidden = true;
    element('no-preview').hidden = false;
  });

  function made(tag, text, className = '') {
    const node = document.createElement(tag);
    node.textContent = text;
    node.className = className;
    return node;
  }

  function showRanked(ranked) {
    element('ranked').replaceChildren(...ranked.map(([label, probability]) => {
      const item = document.createElement('li');
      const bar = document.createElement('meter');
      bar.value = probability;
      bar.setAttribute('aria-hidden', 'true');
      item.append(made('span', label, 'name'), made('data', percent(probability)), bar);
      item.querySelector('data').value = probability;
      return item;
    }));
  }

  function clear() {
    element('result').hidden = true;
    preview.removeAttribute('src');
    preview.load();
    if (address) URL.revokeObjectURL(address);
    address = null;
  }

  function result(file, answer) {
    address = URL.createObjectURL(file);
    preview.hidden = false;
    element('no-preview').hidden = true;
    preview.src = address;
    element('about').textContent = `${file.name}: ${seconds(answer.seconds)}, ${answer.num_frames} frames`;
    showRanked(answer.ranked);
    element('result').hidden = false;
    element('result').focus();
  }

  return { clear, result };
})();

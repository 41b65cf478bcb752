'use strict';
// What the page shows: a chosen video, and what the network makes of it.
const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const seconds = (value) => `${value.toFixed(1)} s`;
const NUM_COLOURS = 8; // .c0 to .c7

const shown = (() => {
  const preview = element('preview');
  let address = null; // of the file in the preview
  let pageAddress = null; // of the attention page, to be saved
  let timelineLength = 1; // seconds
  preview.addEventListener('error', () => {
    preview.hidden = true;
    element('no-preview').hidden = false;
    showMoment();
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

  function showTimeline(segments, length) {
    const labels = [...new Set(segments.map((segment) => segment.label))];
    const pairs = segments.map(({ label, confidence, start_seconds: start, end_seconds: end }) => {
      const when = `${start.toFixed(1)}–${seconds(end)}`;
      const colour = `c${labels.indexOf(label) % NUM_COLOURS}`;
      const part = made('button', label, colour);
      part.style.width = `${(100 * (end - start)) / length}%`;
      part.title = `${label}, ${when}: ${percent(confidence)}`;
      part.tabIndex = -1; // the rows below say the same
      const row = made('button', '');
      row.append(made('span', '', `chip ${colour}`), made('span', when, 'when'), made('span', label, 'name'), made('span', percent(confidence)));
      for (const button of [part, row]) {
        button.type = 'button';
        button.addEventListener('click', () => { preview.currentTime = start; });
      }
      row.dataset.start = start;
      row.dataset.end = end;
      const item = document.createElement('li');
      item.append(row);
      return [part, item];
    });
    element('strip').replaceChildren(...pairs.map(([part]) => part));
    element('segments').replaceChildren(...pairs.map(([, item]) => item));
    timelineLength = length;
    showMoment();
  }

  function showMoment() {
    const now = preview.currentTime + 1e-3; // browsers round it
    element('playhead').hidden = preview.hidden;
    element('playhead').style.left = `${Math.min(100, (100 * now) / timelineLength)}%`;
    for (const row of element('segments').querySelectorAll('button')) {
      row.classList.toggle('now', !preview.hidden && row.dataset.start <= now && now < row.dataset.end);
    }
  }
  preview.addEventListener('timeupdate', showMoment);
  preview.addEventListener('seeking', showMoment);

  function clear() {
    element('result').hidden = true;
    preview.removeAttribute('src');
    preview.load();
    if (address) URL.revokeObjectURL(address);
    address = null;
    clearAttention();
    if (element('attention')) element('attention').hidden = true;
  }

  function clearAttention() {
    if (pageAddress) URL.revokeObjectURL(pageAddress);
    pageAddress = null;
    element('frame-box')?.replaceChildren();
    if (element('save')) element('save').hidden = true;
  }

  function attention(page) {
    clearAttention();
    pageAddress = URL.createObjectURL(new Blob([page], { type: 'text/html' }));
    element('save').href = pageAddress;
    element('save').hidden = false;
    const frame = document.createElement('iframe');
    frame.title = 'What the network looked at';
    frame.src = 'frame';
    frame.setAttribute('sandbox', 'allow-scripts');
    frame.addEventListener('load', () => frame.contentWindow.postMessage(page, '*'), { once: true }); // its origin is none
    element('frame-box').append(frame);
    frame.scrollIntoView({ block: 'nearest' });
  }

  function result(file, answer) {
    address = URL.createObjectURL(file);
    preview.hidden = false;
    element('no-preview').hidden = true;
    preview.src = address;
    element('about').textContent = `${file.name}: ${seconds(answer.seconds)}, ${answer.num_frames} frames`;
    const [start, end] = answer.clips[0];
    element('of-clips').textContent = answer.clips.length === 1
      ? `Of one clip, ${start.toFixed(1)}–${seconds(end)}.`
      : `The mean of ${answer.clips.length} clips of ${seconds(end - start)}, spread evenly over the video.`;
    showRanked(answer.ranked);
    showTimeline(answer.segments, Math.max(answer.seconds, 1e-6));
    if (element('attention')) element('attention').hidden = false;
    element('result').hidden = false;
    element('result').focus();
  }

  return { attention, clear, result };
})();

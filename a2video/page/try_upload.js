// Sends a file to the server as it is, and says how far that is and what became of it.
(() => {
  const MAX_BYTES = Number(document.body.dataset.maxBytes);
  const input = element('file');
  const progress = element('progress');
  const attend = element('attend'); // null where the network has no attention to show
  let request = null; // the one that is under way
  let shownFile = null; // whose result is on the page

  function say(text) {
    element('status').textContent = text;
  }

  function fail(sentence) {
    element('error').textContent = sentence;
    element('error').hidden = false;
  }

  function answerOf(text) {
    try {
      return JSON.parse(text);
    } catch {
      return { error: `The server gave no answer that this page understands: ${text.slice(0, 200)}` };
    }
  }

  function end() {
    request = null;
    element('progress-box').hidden = true;
    enable(true);
    say('');
  }

  function enable(isOn) {
    input.disabled = !isOn;
    if (attend) attend.disabled = !isOn;
  }

  function send(path, query, file, whenDone) {
    request = new XMLHttpRequest();
    request.open('POST', `${path}?${new URLSearchParams({ ...query, name: file.name })}`);
    request.setRequestHeader('content-type', 'application/octet-stream');
    request.upload.addEventListener('progress', (event) => {
      progress.value = event.loaded / event.total;
      say(`Uploading: ${Math.floor(100 * progress.value)}%`);
    });
    request.upload.addEventListener('load', () => {
      progress.removeAttribute('value');
      say('The network looks at it …');
    });
    request.addEventListener('load', () => {
      const answer = answerOf(request.responseText);
      end();
      if (answer.error) fail(answer.error);
      else whenDone(answer);
    });
    request.addEventListener('error', () => {
      end();
      fail('The server cannot be reached, or has hung up: is it still running?');
    });
    request.addEventListener('abort', end);
    progress.value = 0;
    say('Uploading: 0%');
    element('error').hidden = true;
    element('progress-box').hidden = false;
    enable(false);
    request.send(file);
  }

  function take(file) {
    if (request || !file) return;
    shown.clear();
    element('error').hidden = true;
    if (file.size > MAX_BYTES) {
      fail(`${file.name}: has ${(file.size / 1e6).toFixed(0)} MB, and this server takes at most ${MAX_BYTES / 1e6}: shorten it`);
    } else {
      send('classify', {}, file, (answer) => {
        shownFile = file;
        shown.result(file, answer);
      });
    }
  }

  attend?.addEventListener('click', () => {
    const { hidden, currentTime } = element('preview');
    send('attend', hidden ? {} : { at: currentTime }, shownFile, (answer) => shown.attention(answer.page));
  });
  input.addEventListener('click', () => { input.value = ''; }); // so that the same file can be chosen again
  input.addEventListener('change', () => take(input.files[0]));
  element('cancel').addEventListener('click', () => request?.abort());

  // Anywhere on the page; a file that missed the box would otherwise take the place of the page.
  const isFile = (event) => event.dataTransfer?.types.includes('Files');
  let depth = 0; // of the elements that the pointer has entered
  const mark = () => document.body.classList.toggle('dropping', depth > 0);
  addEventListener('dragenter', (event) => { depth += isFile(event); mark(); });
  addEventListener('dragleave', (event) => { depth -= isFile(event); mark(); });
  addEventListener('dragover', (event) => { if (isFile(event)) event.preventDefault(); });
  addEventListener('drop', (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    depth = 0;
    mark();
    const files = [...event.dataTransfer.files];
    if (files.length > 1) fail(`One video at a time: there were ${files.length}.`);
    else {
      if (!request) input.files = event.dataTransfer.files;
      take(files[0]);
    }
  });
})();

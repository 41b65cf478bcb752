'use strict';
// Moves every picture of the page to the same frame of the clip.
(() => {
  const root = document.documentElement;
  root.classList.add('has-script');
  const slider = document.getElementById('frame');
  if (!slider) return; // a clip of one frame
  const label = document.getElementById('frame-label');
  const button = document.getElementById('play');
  const seconds = slider.dataset.seconds.split(' ');
  let timer = 0;

  function show(number) {
    slider.value = number;
    root.style.setProperty('--k', number);
    label.textContent = `frame ${number + 1} of ${seconds.length}, ${seconds[number]} s`;
    slider.setAttribute('aria-valuetext', label.textContent);
  }

  function play(isOn) {
    clearInterval(timer);
    timer = isOn ? setInterval(() => show((Number(slider.value) + 1) % seconds.length), Number(slider.dataset.milliseconds)) : 0;
    button.textContent = isOn ? 'Pause' : 'Play';
  }

  button.addEventListener('click', () => play(!timer));
  slider.addEventListener('input', () => { play(false); show(Number(slider.value)); });
  document.getElementById('strips').addEventListener('change', (event) => {
    root.classList.toggle('strips', event.target.checked);
  });
  show(Number(slider.value));
  play(!matchMedia('(prefers-reduced-motion: reduce)').matches);
})();

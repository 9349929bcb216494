import { render } from 'preact';
import { App } from './app.js';
import { Connection } from './state/connection.js';
import './style.css';

const root = document.getElementById('app')!;
let isDue = false;

/** At most once a frame, however many messages come. */
function draw(): void {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    render(<App connection={connection} />, root);
  });
}

const connection = new Connection(draw);
connection.start();
draw();

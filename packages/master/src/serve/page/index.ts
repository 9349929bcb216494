export type { FaultButtons } from './fault-buttons.js';
export { registerPage, type PageOptions } from './register.js';

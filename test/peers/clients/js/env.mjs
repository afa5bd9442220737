// What the suite tells a driver: where to send, with which key, and the session in the dialect of its SDK.
import { readFileSync } from 'node:fs';

export const gateway = process.env.GATEWAY;
export const writeKey = process.env.WRITE_KEY;
export const session = JSON.parse(readFileSync(process.env.SESSION, 'utf8'));
export const timeout = Number(process.env.TIMEOUT_MS);
export const patience = Number(process.env.PATIENCE_MS);
export const appRetry = process.env.APP_RETRY === '1'; // the application repeats what its SDK reports as failed

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Asks the service as its host would: by the event `fetch`, which Node.js does not have.

import assert from 'node:assert/strict';
import { test } from 'node:test';

let onFetch;
globalThis.addEventListener = (_kind, listener) => (onFetch = listener);
await import('./service.js');

function ask(method, path) {
  const request = new Request(`http://service.example${path}`, { method });
  return new Promise((resolve) => onFetch({ request, respondWith: resolve }));
}

test('whoever the path names is greeted', async () => {
  assert.equal(await (await ask('GET', '/ada')).text(), 'good day, ada\n');
  assert.equal(await (await ask('GET', '/')).text(), 'good day, world\n');
  assert.equal((await ask('HEAD', '/ada')).status, 200);
});

test('nothing is taken', async () => {
  const response = await ask('POST', '/ada');
  assert.equal(response.status, 405);
  assert.equal(response.headers.get('allow'), 'GET, HEAD');
});

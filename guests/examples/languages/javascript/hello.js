// Greets in HTTP. Each request runs in a fresh sandbox, so a variable set here is not there for the next one.

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const { pathname } = new URL(request.url);
  if (request.method === 'POST') {
    const text = await request.text();
    return new Response(`${pathname} in JavaScript heard ${text.length} characters\n`);
  }
  return new Response(`hello from JavaScript on ${pathname}\n`, { headers: { 'content-type': 'text/plain' } });
}

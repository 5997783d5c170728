// Greets in HTTP. Each request runs in a fresh sandbox, so a variable set here is not there for the next one.

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  // HEAD is answered like GET; the host sends no body then.
  if (!['GET', 'HEAD'].includes(request.method)) {
    return text(405, 'there is only GET and HEAD here\n', { allow: 'GET, HEAD' });
  }
  const { pathname } = new URL(request.url);
  const name = pathname.replaceAll('/', '') || 'world';
  console.log(`${name} is greeted`);
  return text(200, `good day, ${name}\n`);
}

function text(status, body, headers = {}) {
  return new Response(body, { status, headers: { 'content-type': 'text/plain; charset=utf-8', ...headers } });
}

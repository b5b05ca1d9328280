// A server on Node's http module: node node_server.js PORT IDLE_MS
// It counts how often each X-Id has come, and closes connections that are idle for IDLE_MS.
'use strict';
const http = require('http');
const [port, idleMs] = process.argv.slice(2).map(Number);
const seen = new Map();
let connections = 0;
let timedOut = 0;

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://any');
  const id = request.headers['x-id'];
  if (id) seen.set(id, (seen.get(id) || 0) + 1);
  // Some versions keep connections a second longer than they announce: the timer that they set is set anew here.
  response.on('finish', () => request.socket && request.socket.setTimeout(idleMs));
  const end = () => {
    if (url.pathname.endsWith('/record')) {
      const twice = [...seen].filter(([, count]) => count > 1).map(([name]) => name);
      response.end(JSON.stringify({ connections, timed_out: timedOut, seen: [...seen.keys()], twice }));
    } else if (url.pathname.endsWith('/hints')) {
      response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
      response.end('hinted');
    } else if (url.pathname.endsWith('/trailers')) {
      response.writeHead(200, { Trailer: 'X-Sum' });
      response.write('trailed');
      response.addTrailers({ 'X-Sum': 'abc' });
      response.end();
    } else {
      setTimeout(() => response.end('ok'), Number(url.searchParams.get('ms') || 0));
    }
  };
  request.on('end', end).resume();
});
server.on('connection', (socket) => {
  connections += 1;
  socket.on('timeout', () => { timedOut += 1; });
});
server.keepAliveTimeout = idleMs;
server.listen(port, '127.0.0.1');

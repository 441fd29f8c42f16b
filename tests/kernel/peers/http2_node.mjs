// SPDX-License-Identifier: Apache-2.0
// Node's own HTTP/2 server and client on loopback, without TLS; within it if it is given a folder with key.pem and
// cert.pem, from the first line on that it reads. It prints its port and how many requests the server answered, by
// method and status, as JSON.
import fs from "node:fs";
import http2 from "node:http2";

const CLIENTS = 7, REQUESTS = 307;
const METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH"], STATUSES = [200, 201, 204, 302, 404, 500, 503];
const counts = {};

const folder = process.argv[2];
const read = (name) => fs.readFileSync(`${folder}/${name}`);
if (folder) fs.readSync(0, Buffer.alloc(1));
const server = folder
  ? http2.createSecureServer({ key: read("key.pem"), cert: read("cert.pem") })
  : http2.createServer();
server.on("stream", (stream, headers) => {
  const status = Number(headers[":path"].slice(1));
  stream.resume();
  stream.on("end", () => {
    const key = `${headers[":method"]} ${status}`;
    counts[key] = (counts[key] ?? 0) + 1;
    stream.respond({ ":status": status, "x-number": headers["x-number"] });
    stream.end(status === 204 ? undefined : "x".repeat(status));
  });
});

function ask(session, n) {
  return new Promise((done, fail) => {
    const method = METHODS[n % METHODS.length];
    const stream = session.request({
      ":method": method, ":path": `/${STATUSES[n % STATUSES.length]}`, "x-number": String(n),
    }, { endStream: method === "GET" });
    if (method !== "GET") stream.end("q".repeat(n));
    stream.resume();
    stream.on("end", done);
    stream.on("error", fail);
  });
}

server.listen(0, "127.0.0.1", async () => {
  const { port } = server.address();
  const sessions = Array.from({ length: CLIENTS }, () => 
    http2.connect(`http${folder ? "s" : ""}://127.0.0.1:${port}`, { rejectUnauthorized: false }));
  for (let n = 0; n < REQUESTS; n += 10)
    await Promise.all(sessions.flatMap((session) =>
      Array.from({ length: Math.min(10, REQUESTS - n) }, (_, i) => ask(session, n + i))));
  for (const session of sessions) session.close();
  server.close();
  console.log(JSON.stringify({ port, counts }));
});

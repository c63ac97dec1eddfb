/** nchan in nginx with one worker, and the small publisher that it needs: what is heard is POSTed to it. */

import { spawn } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { Agent, request } from "node:http"
import { type AddressInfo, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { ABSENT } from "../harness/server.ts"
import { listen } from "./listen.ts"

const MODULE = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"]
  .map((folder) => `${folder}/ngx_nchan_module.so`)
  .find((path) => existsSync(path))
const NGINX = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"].find((path) => existsSync(path))
if (NGINX === undefined || MODULE === undefined) {
  console.error("nginx with nchan is not installed (Debian: apt-get install nginx libnginx-mod-nchan)")
  process.exit(ABSENT)
}

const home = await mkdtemp(join(tmpdir(), "commitcast-nchan-"))
const port = await freePort()
await writeFile(
  join(home, "nginx.conf"),
  `${process.getuid?.() === 0 ? "user root;" : ""}
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid ${home}/pid;
error_log stderr crit;
load_module ${MODULE};
events { worker_connections 18000; }
http {
  access_log off;
  tcp_nodelay on;
  keepalive_requests 1000000000;
  client_body_temp_path ${home}/body;
  proxy_temp_path ${home}/proxy;
  fastcgi_temp_path ${home}/fastcgi;
  uwsgi_temp_path ${home}/uwsgi;
  scgi_temp_path ${home}/scgi;
  nchan_shared_memory_size 256M;
  nchan_message_buffer_length 2000;
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location = /subscribe { nchan_subscriber websocket; nchan_channel_id votes; }
    location = /publish { nchan_publisher http; nchan_channel_id votes; }
  }
}
`,
)
const nginx = spawn(NGINX, ["-c", join(home, "nginx.conf"), "-p", home, "-e", "stderr"], {
  stdio: ["ignore", "ignore", "inherit"],
})
const exited = new Promise<void>((resolve) => nginx.once("exit", () => resolve()))
process.once("SIGTERM", async () => {
  nginx.kill("SIGTERM")
  await exited
  await rm(home, { recursive: true, force: true })
  process.exit()
})

process.once("exit", () => nginx.kill("SIGTERM"))

const agent = new Agent({ keepAlive: true, maxSockets: 1 })
const waiting: string[] = []
let posting = false
async function publish(): Promise<void> {
  if (posting) return
  posting = true
  for (let payload = waiting.shift(); payload !== undefined; payload = waiting.shift()) await post(payload)
  posting = false
}
function post(payload: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(payload) }
    const posted = request({ agent, port, host: "127.0.0.1", path: "/publish", method: "POST", headers })
    posted.on("error", reject)
    posted.on("response", (response) => response.resume().once("end", resolve))
    posted.end(payload)
  })
}

let worker = workerOf(nginx.pid as number)
for (; worker === undefined; worker = workerOf(nginx.pid as number)) {
  if (nginx.exitCode !== null) throw new Error("nginx did not start")
  await sleep(20)
}
await listen((payload) => {
  waiting.push(payload)
  void publish()
})
console.log(JSON.stringify({ event: "ready", url: `http://127.0.0.1:${port}`, pid: worker }))

/** The master only watches; the worker holds the sockets. */
function workerOf(master: number): number | undefined {
  const children = readFileSync(`/proc/${master}/task/${master}/children`, "utf8")
  const first = children.trim().split(" ")[0]
  return first === "" ? undefined : Number(first)
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

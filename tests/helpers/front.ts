/** The real nginx and HAProxy of this machine, with the files of ops/, in front of two relays. */

import { existsSync, readFileSync } from "node:fs"
import { chmod, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { Test } from "tap"
import { freePort } from "../../cli/embedded/port.ts"
import { workDirectory } from "./command.ts"
import { startDaemon } from "./daemon.ts"
import type { TestRelay } from "./relay.ts"
import { adapted, shipped } from "./shipped.ts"

export interface Front {
  port: number
  /** What it has logged so far, of requests and of errors. */
  log(): string
}

export interface Program {
  name: string
  /** Its file in ops/. */
  file: string
  /** The reason to skip tests that need it, or false. */
  missing: string | false
  /** What it waits for on a connection that was upgraded, as its file says it. Seconds. */
  patience: RegExp
  /** Starts it before two relays, ended with the test. */
  start(t: Test, relays: [TestRelay, TestRelay]): Promise<Front>
}

const NGINX = "/usr/sbin/nginx"
const NGINX_FILE = "nginx/commitcast.conf"
const HAPROXY = "/usr/sbin/haproxy"
const HAPROXY_FILE = "haproxy/haproxy.cfg"

export const PROGRAMS: Program[] = [
  {
    name: "nginx",
    file: NGINX_FILE,
    missing: !existsSync(NGINX) && "no nginx on this machine",
    patience: /^ +proxy_(?:read|send)_timeout (\d+)s;$/gm,
    start: startNginx,
  },
  {
    name: "haproxy",
    file: HAPROXY_FILE,
    missing: !existsSync(HAPROXY) && "no HAProxy on this machine",
    patience: /^ +timeout tunnel (\d+)s$/gm,
    start: startHaproxy,
  },
]

const portOf = ({ url }: TestRelay): string => new URL(url).port

async function startNginx(t: Test, [one, other]: [TestRelay, TestRelay]): Promise<Front> {
  const home = await workDirectory(t)
  // As root it leaves the work to a user of its own.
  await chmod(home, 0o755)
  const port = await freePort()
  const site = adapted(shipped(NGINX_FILE), {
    "listen 80;": `listen 127.0.0.1:${port};`,
    "127.0.0.1:8080": `127.0.0.1:${portOf(one)}`,
    "127.0.0.1:8081": `127.0.0.1:${portOf(other)}`,
    "/var/log/nginx/commitcast.access.log": `${home}/access.log`,
    "/var/log/nginx/commitcast.error.log": `${home}/error.log`,
  })
  await writeFile(join(home, "commitcast.conf"), site)
  const places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
  await writeFile(
    join(home, "nginx.conf"),
    `daemon off;
worker_processes 1;
pid ${home}/pid;
error_log stderr;
events { worker_connections 512; }
http {
  ${places.map((place) => `${place}_temp_path ${home}/${place};`).join("\n  ")}
  include ${home}/commitcast.conf;
}
`,
  )
  const own = await startDaemon(t, NGINX, ["-c", `${home}/nginx.conf`, "-p", home, "-e", "stderr"], port)
  const read = (name: string) => readFileSync(join(home, name), "utf8")
  return { port, log: () => own() + read("access.log") + read("error.log") }
}

async function startHaproxy(t: Test, [one, other]: [TestRelay, TestRelay]): Promise<Front> {
  const home = await workDirectory(t)
  const port = await freePort()
  const site = adapted(shipped(HAPROXY_FILE), {
    "bind :80\n": `bind 127.0.0.1:${port}\n`,
    "127.0.0.1:8080": `127.0.0.1:${portOf(one)}`,
    "127.0.0.1:8081": `127.0.0.1:${portOf(other)}`,
  })
  const before = "global\n    log stdout format raw daemon\n\n"
  await writeFile(join(home, "haproxy.cfg"), before + site)
  return { port, log: await startDaemon(t, HAPROXY, ["-db", "-f", `${home}/haproxy.cfg`], port) }
}

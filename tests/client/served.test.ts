/** The library as the relay serves it to the page: of a checkout without a build, and of a build. */

import { execFile } from "node:child_process"
import { mkdtemp, readFile, rm, symlink } from "node:fs/promises"
import { createServer } from "node:http"
import { createRequire } from "node:module"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { promisify } from "node:util"
import express from "express"
import t, { type Test } from "tap"
import { serveLibrary } from "../../api/library.ts"

const ROOT = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))
const TSC = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "lib/tsc.js")

/** Serves it as api/app.ts does. @returns what a path answers. */
async function serve(t: Test, library: ReturnType<typeof serveLibrary>) {
  const server = createServer(express().use("/client", library))
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  return async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}/client/${path}`)
    return {
      status: response.status,
      type: response.headers.get("content-type"),
      text: await response.text(),
    }
  }
}

const specifiers = (text: string): string[] =>
  [...text.matchAll(/^(?:import|export) .*from "(.+)";?$/gm)].map(([, specifier]) => specifier ?? "")

t.test("a checkout serves its sources, as one module", async (t) => {
  const get = await serve(t, serveLibrary())
  const { status, type, text } = await get("client.js")
  t.equal(status, 200)
  t.match(type, /^text\/javascript/)
  t.match(text, /^export \{\n.*connect\n\};$/m)
  t.same(specifiers(text), [])
  t.equal((await get("machine.js")).status, 404)
  t.equal((await get("../library.ts")).status, 404)
})

t.test("a build serves what it has made, and all that this asks for", async (t) => {
  const home = await mkdtemp(join(tmpdir(), "commitcast-served-"))
  t.teardown(() => rm(home, { recursive: true, force: true }))
  const args = [TSC, "-p", "tsconfig.build.json", "--outDir", join(home, "dist")]
  await promisify(execFile)(process.execPath, args, { cwd: ROOT })
  for (const name of ["package.json", "node_modules"]) await symlink(join(ROOT, name), join(home, name))
  const built = await import(pathToFileURL(join(home, "dist/api/library.js")).href)
  const get = await serve(t, built.serveLibrary())
  const asked = new Set(["client.js"])
  for (const name of asked) {
    const { status, type, text } = await get(name)
    t.equal(status, 200, name)
    t.match(type, /^text\/javascript/)
    t.equal(text, await readFile(join(home, "dist/client", name), "utf8"))
    for (const specifier of specifiers(text)) asked.add(specifier.replace("./", ""))
  }
  t.ok(asked.has("machine.js"), "the modules of the library were followed")
})

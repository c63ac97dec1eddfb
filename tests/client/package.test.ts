/** The client as a page loads it: one small file. */

import { dirname } from "node:path"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { build } from "esbuild"
import t from "tap"

const ROOT = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))
// "About 11 KB", with room for what another zlib makes of it.
const MOST_BYTES = 11_100

t.test("it is one file without dependencies, about 11 KB minified and compressed", async (t) => {
  const built = await build({
    absWorkingDir: ROOT,
    entryPoints: ["client/client.ts"],
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    platform: "browser",
    target: "es2022",
    metafile: true,
    logLevel: "silent",
  })
  t.same(built.warnings, [])
  const inputs = Object.keys(built.metafile.inputs)
  t.same(
    inputs.filter((path) => !path.startsWith("client/")),
    [],
    "nothing but client/ is in it",
  )
  const bytes = gzipSync(built.outputFiles[0]?.contents ?? "").length
  t.comment(`${bytes} bytes`)
  t.ok(bytes < MOST_BYTES, `${bytes} bytes`)
})

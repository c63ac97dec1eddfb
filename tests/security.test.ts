/** docs/SECURITY.md names for each promise the tests that hold it: there are such tests. */

import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import t from "tap"

const read = (path: string) => readFileSync(fileURLToPath(import.meta.resolve(`#root/${path}`)), "utf8")

const TABLE = /^\| threat \| .+\n\|[-|]+\n((?:\|.+\n)+)/gm
const PROMISE = /^\| (.+?) \| .+ \| (.+) \|$/gm

t.test("each promise is held by tests that there are", async (t) => {
  const tables = [...read("docs/SECURITY.md").matchAll(TABLE)].map(([, rows = ""]) => rows)
  const promises = [...tables.join("").matchAll(PROMISE)]
  t.ok(promises.length > 20)
  for (const [, threat = "", held = ""] of promises) {
    for (const place of held.split(" · ")) {
      const [, path = "", names = ""] = /^`(tests\/.+\.test\.ts)`(?:: (.+))?$/.exec(place) ?? []
      t.not(path, "", `${threat}: ${place}`)
      if (path === "") continue
      const source = read(path)
      for (const name of names.split("; ")) t.ok(source.includes(name), `${path}: ${name}`)
    }
  }
})

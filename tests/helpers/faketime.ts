/** A clock that a test can set, by libfaketime: its file holds what is added to the time, such as "+7200" seconds. */

import { existsSync } from "node:fs"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"

const LIBRARY = ["x86_64", "aarch64"]
  .map((machine) => `/usr/lib/${machine}-linux-gnu/faketime/libfaketimeMT.so.1`)
  .find((path) => existsSync(path))

/** The reason to skip tests that need it, or false. */
export const NO_FAKETIME = LIBRARY === undefined && "no libfaketime on this machine"

/** The environment of a process whose clock this file sets. */
export const fakedBy = (file: string): Record<string, string> => ({
  LD_PRELOAD: LIBRARY ?? "",
  FAKETIME_TIMESTAMP_FILE: file,
  FAKETIME_NO_CACHE: "1",
  FAKETIME_DONT_FAKE_MONOTONIC: "1",
})

/** A directory with a `postgres` whose clock this file sets, as servers get no environment but what they need. */
export async function fakedServer(binDir: string, serverDir: string, file: string): Promise<string> {
  const environment = Object.entries(fakedBy(file)).map(([name, value]) => `${name}='${value}'`)
  await mkdir(serverDir)
  await writeFile(
    join(serverDir, "postgres"),
    `#!/bin/sh\nexec env ${environment.join(" ")} ${binDir}/postgres "$@"\n`,
    { mode: 0o755 },
  )
  return serverDir
}

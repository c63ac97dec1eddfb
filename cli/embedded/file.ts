/** Owns how the embedded database reads and writes its files: a reader never sees half of one. */

import { randomBytes } from "node:crypto"
import { chmod, lstat, mkdir, readFile, rename, writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { codeOf } from "./errors.ts"

/** What a JSON file holds; undefined when it is missing or no JSON. */
export async function readJson(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, "utf8"))
  } catch (error) {
    if (error instanceof SyntaxError || codeOf(error) === "ENOENT") return undefined
    throw error
  }
}

/** Replaces a private file at once, so that a reader never sees half of it. */
export async function replaceFile(file: string, text: string): Promise<void> {
  const draft = join(dirname(file), `draft-${randomBytes(6).toString("hex")}`)
  await writeFile(draft, text, { flag: "wx", mode: 0o600 })
  await rename(draft, file)
}

/** Makes a directory that every user may enter. */
export async function mkdirForAll(path: string): Promise<void> {
  if (await mkdir(path, { recursive: true })) await chmod(path, 0o755) // the umask may be 077
}

/** True for a link, too, even when it points nowhere. */
export const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  )

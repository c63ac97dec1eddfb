/** pg_dump and pg_restore, where they are. */

import { execFile, execFileSync } from "node:child_process"
import { writeFile } from "node:fs/promises"
import { promisify } from "node:util"

const execute = promisify(execFile)

/** The reason why that version's server cannot be dumped, or false: pg_dump takes servers up to its own version. */
export function noDump(version: string): string | false {
  try {
    const found = Number(/\) (\d+)/.exec(execFileSync("pg_dump", ["--version"], { encoding: "utf8" }))?.[1])
    return found < Number(version) ? `pg_dump ${found} is older than the server` : false
  } catch {
    return "no pg_dump on this machine"
  }
}

/** Dumps a database into a file. */
export async function dump(url: string, file: string): Promise<void> {
  await execute("pg_dump", ["-Fc", "-f", file, "-d", url])
}

/** Restores a dump, or a section of it. */
export async function restore(url: string, file: string, ...options: string[]): Promise<void> {
  await execute("pg_restore", ["--exit-on-error", ...options, "-d", url, file])
}

/** Restores those entries of a section that fit, as `pg_restore --list` names them. */
export async function restoreOnly(
  url: string,
  file: string,
  section: string,
  fits: (entry: string) => boolean,
): Promise<void> {
  const { stdout } = await execute("pg_restore", ["--list", `--section=${section}`, file])
  const list = `${file}.list`
  await writeFile(list, stdout.split("\n").filter(fits).join("\n"))
  await restore(url, file, `--use-list=${list}`)
}

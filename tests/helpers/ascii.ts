/** A database without an encoding. */

import type { Test } from "tap"
import { type Database, database } from "./database.ts"
import type { Version } from "./servers.ts"

/** Makes one beside an empty database, and drops it when the test is over. @returns the URL of the one without, as its owner. */
export async function asciiDatabase(
  t: Test,
  version: Version,
): Promise<{ home: Database /** Of the one without an encoding, as its owner. */; url: string }> {
  const home = await database(t, { version, empty: true })
  const name = `${home.name}_ascii`
  const superuser = await home.session(home.superuserUrl)
  await superuser.query(
    `create database ${name} template template0 encoding 'SQL_ASCII' locale 'C' owner app`,
  )
  t.teardown(async () => {
    const client = await home.session(home.superuserUrl.replace(home.name, "postgres"))
    await client.query(`drop database ${name} with (force)`)
  })
  return { home, url: home.url.replace(home.name, name) }
}

/** Owns `secrets.json`: the passwords and the token secret of one embedded directory, made at its first start. */

import { randomBytes } from "node:crypto"
import { join } from "node:path"
import { z } from "zod"
import { EmbeddedError } from "./errors.ts"
import { exists, readJson, replaceFile } from "./file.ts"

export const Secrets = z.object({
  superuser_password: z.string().min(1),
  commitcast_password: z.string().min(1),
  jwt_secret: z.base64url().min(43), // 32 bytes
})
export type Secrets = z.infer<typeof Secrets>

/** @throws EmbeddedError if they are missing or damaged */
export async function readSecrets(dir: string): Promise<Secrets> {
  const file = join(dir, "secrets.json")
  const secrets = Secrets.safeParse(await readJson(file))
  if (!secrets.success)
    throw new EmbeddedError(`${file} is missing or damaged: put it back, or move ${dir} away to start anew`)
  return secrets.data
}

/** The secrets that belong to the data, or new ones where there is none yet. */
export async function settleSecrets(dir: string, dataIsThere: boolean): Promise<Secrets> {
  const file = join(dir, "secrets.json")
  if (dataIsThere || (await exists(file))) return readSecrets(dir)
  const random = () => randomBytes(32).toString("base64url")
  const secrets: Secrets = {
    superuser_password: random(),
    commitcast_password: random(),
    jwt_secret: random(),
  }
  await replaceFile(file, JSON.stringify(secrets, null, 2))
  return secrets
}

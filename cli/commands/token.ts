/** Mints tokens with the running settings' secret, for people who try it and for scripts. */

import { join } from "node:path"
import type { Command } from "commander"
import jwt from "jsonwebtoken"
import { ConfigError, type Settings } from "../../relay/config.ts"
import { exists } from "../embedded/file.ts"
import { readSecrets } from "../embedded/secrets.ts"
import { invocation } from "../invocation.ts"
import { addCommand, DATABASE, KEYS, print, splitList } from "./arguments.ts"
import { settingsOf } from "./settings.ts"

export interface TokenOptions {
  user: string
  admin?: boolean | undefined
  roles?: string[] | undefined
  committees?: string[] | undefined
  elections?: string[] | undefined
  channels?: string[] | undefined
  /** A number of seconds, or a duration such as 1h. */
  expires: string
}

/** The secret that tokens are signed with: JWT_SECRET, or the embedded default's own. @throws ConfigError */
export async function findSecret(
  settings: Pick<Settings, "JWT_SECRET" | "JWT_PUBLIC_KEY" | "JWKS_URL" | "DATABASE_URL" | "COMMITCAST_DIR">,
): Promise<string> {
  if (settings.JWT_SECRET !== undefined) return settings.JWT_SECRET
  if (settings.JWT_PUBLIC_KEY !== undefined)
    throw new ConfigError("JWT_PUBLIC_KEY only checks tokens: whoever has the private key must sign them")
  if (settings.JWKS_URL !== undefined)
    throw new ConfigError("JWKS_URL only checks tokens: the issuer whose keys it has must sign them")
  if (settings.DATABASE_URL !== undefined)
    throw new ConfigError("JWT_SECRET is not set: tokens are signed with it")
  const { COMMITCAST_DIR: dir } = settings
  if (!(await exists(join(dir, "data"))))
    throw new ConfigError(
      `JWT_SECRET is not set, and there is no embedded PostgreSQL in ${dir}: set it, or run ${invocation("start")} first`,
    )
  return (await readSecrets(dir)).jwt_secret
}

/** Signs a token. @throws ConfigError if the duration is not one. */
export function signToken(
  secret: string,
  settings: Pick<Settings, "JWT_ISSUER" | "JWT_AUDIENCE">,
  options: TokenOptions,
): string {
  const { user, admin, roles, committees, elections, channels, expires } = options
  const claims = { sub: user, ...(admin ? { role: "admin" } : {}), roles, committees, elections, channels }
  const given = Object.fromEntries(Object.entries(claims).filter(([, value]) => value !== undefined))
  const sign: jwt.SignOptions = { algorithm: "HS256", expiresIn: readDuration(expires) }
  if (settings.JWT_ISSUER !== undefined) sign.issuer = settings.JWT_ISSUER
  if (settings.JWT_AUDIENCE !== undefined) sign.audience = settings.JWT_AUDIENCE
  return jwt.sign(given, secret, sign)
}

const UNITS: Record<string, number> = { "": 1, s: 1, m: 60, h: 3_600, d: 86_400 }

/** Seconds of `90`, `90s`, `15m`, `1h`, `60d`. */
function readDuration(text: string): number {
  const match = /^(\d{1,9})([smhd]?)$/.exec(text)
  if (match === null)
    throw new ConfigError(`--expires must be a number of seconds, or such as 15m, 1h, 60d; it is ${text}`)
  return Number(match[1]) * (UNITS[match[2] ?? ""] as number)
}

export function addToken(program: Command): void {
  addCommand(program, "token", "print a token signed with the relay's secret", [...DATABASE, ...KEYS])
    .requiredOption("--user <id>", "whose it is")
    .option("--admin", "the role admin, which may read the health report")
    .option("--roles <list>", "roles that may see restricted columns", splitList)
    .option("--committees <list>", "narrow it to these committees", splitList)
    .option("--elections <list>", "narrow it to these elections", splitList)
    .option("--channels <list>", "narrow it to these channels", splitList)
    .option("--expires <duration>", "a number of seconds, or such as 15m, 1h, 60d", "1h")
    .action(async (options) => {
      const settings = settingsOf(options)
      print(signToken(await findSecret(settings), settings, options))
    })
}

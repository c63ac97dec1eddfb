/** Tokens: a JWT in, the user and its rights out. */

import jwt from "jsonwebtoken"
import { z } from "zod"
import type { Settings } from "../config.ts"
import type { Key, KeyHint, Keys } from "./keys.ts"
import type { Rights } from "./rights.ts"

/**
 * The header. Keys in it (`jku`, `jwk`, `x5u`, `x5c`) are ignored, and a token with critical extensions (`crit`, RFC 7515,
 * section 4.1.11) is refused. Tokens of other kinds say so in `typ` (RFC 8725, 3.11).
 */
const Header = z.object({
  alg: z.string(),
  kid: z.string().max(256).optional(),
  typ: z
    .string()
    .regex(/^(application\/)?(jwt|at\+jwt)$/i)
    .optional(),
  crit: z.undefined().optional(),
  b64: z.literal(true).optional(),
})

/** Ids in tokens come as strings or numbers; a number that a double cannot hold is refused rather than rounded. */
const Id = z.union([z.string().min(1).max(128), z.int().transform(String)])
const Ids = z.array(Id).max(10_000).optional()

/**
 * The kinds that issuers sign with the same key. Refresh and identity tokens have a good signature and give no access:
 * SimpleJWT, Cognito, Keycloak, Flask-JWT-Extended, OpenID Connect.
 */
const kinds = {
  token_type: z.literal("access").optional(),
  token_use: z.literal("access").optional(),
  typ: z.enum(["Bearer", "JWT", "at+jwt", "access"]).optional(),
  type: z
    .unknown()
    .refine((type) => type !== "refresh")
    .optional(),
  at_hash: z.undefined().optional(),
  c_hash: z.undefined().optional(),
}

/** Names of roles, of the length that `relay.track` allows. */
const Roles = z.array(z.string().max(128)).max(128).optional()

/** The claims that count. A claim of a wrong type makes the token invalid; it never widens it. */
const Claims = z
  .object({
    ...kinds,
    sub: Id.optional(),
    user_id: Id.optional(),
    /** Up to the year 9999: nobody means a later time. */
    exp: z.number().min(0).max(253_402_300_799),
    role: z.string().optional(),
    roles: Roles,
    is_staff: z.boolean().optional(),
    committees: Ids,
    elections: Ids,
    channels: Ids,
    /** RFC 7519 has it a string. */
    jti: z.string().max(256).optional(),
    iat: z.number().optional(),
  })
  .refine((claims) => claims.sub !== undefined || claims.user_id !== undefined, "names no user")

export interface Identity {
  readonly user: string
  readonly admin: boolean
  readonly rights: Rights
  /** When the connection is closed. Milliseconds since 1970. */
  readonly expiresAt: number
  /** What it can be revoked by, beside its user. */
  readonly jti?: string | undefined
  /** Milliseconds since 1970. */
  readonly issuedAt?: number | undefined
}

/** `unavailable`: the issuer cannot be asked for an unknown key. `revoked`: only `Revocations` says so. */
export type AuthResult =
  | { ok: true; identity: Identity }
  | { ok: false; reason: "missing" | "invalid" | "expired" | "unavailable" | "revoked" }

export interface Auth {
  /** Whether there is a key to check any token with. */
  ready(): boolean
  /** Checks a token. Never rejects, and says only that a token is invalid or expired, not why. */
  verify(token: string | undefined): Promise<AuthResult>
}

/** Clocks of issuer and relay may differ by this much. */
const LEEWAY_SECONDS = 5
/** Tokens that expire together close their connections spread over the leeway, or over this share of what is left. */
const SPREAD = 0.1

export function createAuth(keys: Keys, settings: Pick<Settings, "JWT_ISSUER" | "JWT_AUDIENCE">): Auth {
  const options: jwt.VerifyOptions = { clockTolerance: LEEWAY_SECONDS }
  if (settings.JWT_ISSUER !== undefined) options.issuer = settings.JWT_ISSUER
  if (settings.JWT_AUDIENCE !== undefined) options.audience = settings.JWT_AUDIENCE

  function check(token: string, { key, algorithm }: Key): AuthResult {
    try {
      const claims = Claims.parse(jwt.verify(token, key, { ...options, algorithms: [algorithm] }))
      return { ok: true, identity: identityOf(claims) }
    } catch (error) {
      return { ok: false, reason: error instanceof jwt.TokenExpiredError ? "expired" : "invalid" }
    }
  }

  return {
    ready: () => keys.report().known > 0,
    async verify(token) {
      if (token === undefined || token === "") return { ok: false, reason: "missing" }
      const hint = readHeader(token)
      if (hint === undefined) return { ok: false, reason: "invalid" }
      const found = await keys.find(hint)
      if (found.kind === "unavailable") return { ok: false, reason: "unavailable" }
      if (found.kind === "unknown") return { ok: false, reason: "invalid" }
      let refusal: AuthResult = { ok: false, reason: "invalid" }
      for (const key of found.keys) {
        const result = check(token, key)
        if (result.ok) return result
        if (result.reason === "expired") refusal = result
      }
      return refusal
    },
  }
}

/** Parsed by the library that checks the token, so that both see the same. */
function readHeader(token: string): KeyHint | undefined {
  try {
    return Header.safeParse(jwt.decode(token, { complete: true })?.header).data
  } catch {
    return undefined
  }
}

function identityOf(claims: z.infer<typeof Claims>): Identity {
  const set = (ids: string[] | undefined) => (ids === undefined ? null : new Set(ids))
  const roles = new Set(claims.roles)
  if (claims.role !== undefined) roles.add(claims.role)
  if (claims.is_staff === true) roles.add("admin")
  return {
    user: claims.sub ?? (claims.user_id as string),
    admin: roles.has("admin"),
    rights: {
      committees: set(claims.committees),
      elections: set(claims.elections),
      channels: set(claims.channels),
      roles,
    },
    expiresAt: closingTime(claims.exp),
    jti: claims.jti,
    issuedAt: claims.iat === undefined ? undefined : claims.iat * 1_000,
  }
}

/** Never after the leeway, and spread, so that clients do not all come back at once. */
function closingTime(exp: number): number {
  const end = (exp + LEEWAY_SECONDS) * 1_000
  const left = Math.max(0, end - Date.now())
  return end - Math.random() * Math.min(LEEWAY_SECONDS * 1_000, SPREAD * left)
}

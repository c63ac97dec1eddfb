/** Tokens: a JWT in, the user and its rights out. */

import { createPublicKey, type KeyObject } from "node:crypto"
import jwt from "jsonwebtoken"
import { z } from "zod"
import { ConfigError, type Settings } from "./config.ts"
import type { Rights } from "./subscription.ts"

/** Ids in tokens come as strings or numbers; a number that a double cannot hold is refused rather than rounded. */
const Id = z.union([z.string().min(1).max(128), z.int().transform(String)])
const Ids = z.array(Id).max(10_000).optional()

/** The claims that count. A claim of a wrong type makes the token invalid; it never widens it. */
const Claims = z
  .object({
    sub: Id.optional(),
    user_id: Id.optional(),
    /** Up to the year 9999: beyond, it is no time that anybody meant. */
    exp: z.number().min(0).max(253_402_300_799),
    token_type: z.literal("access").optional(),
    role: z.string().optional(),
    is_staff: z.boolean().optional(),
    committees: Ids,
    elections: Ids,
    channels: Ids,
  })
  .refine((claims) => claims.sub !== undefined || claims.user_id !== undefined, "names no user")

export interface Identity {
  readonly user: string
  readonly admin: boolean
  readonly rights: Rights
  /** Milliseconds since 1970. */
  readonly expiresAt: number
}

export type AuthResult =
  | { ok: true; identity: Identity }
  | { ok: false; reason: "missing" | "invalid" | "expired" }

export interface Auth {
  /** Checks a token. Never throws, and says no more than that it is invalid or expired. */
  verify(token: string | undefined): AuthResult
}

/** Clocks of issuer and relay may differ by this much. */
const LEEWAY_SECONDS = 5

/**
 * Makes the verifier. The algorithm is pinned by the key: a secret means HS256, an RSA key RS256, a P-256 key ES256.
 * @throws ConfigError if there is no key, or one of another type.
 */
export function createAuth(
  settings: Pick<Settings, "JWT_SECRET" | "JWT_PUBLIC_KEY" | "JWT_ISSUER" | "JWT_AUDIENCE">,
): Auth {
  const { key, algorithm } = verificationKey(settings)
  const options: jwt.VerifyOptions = { algorithms: [algorithm], clockTolerance: LEEWAY_SECONDS }
  if (settings.JWT_ISSUER !== undefined) options.issuer = settings.JWT_ISSUER
  if (settings.JWT_AUDIENCE !== undefined) options.audience = settings.JWT_AUDIENCE
  return {
    verify(token) {
      if (token === undefined || token === "") return { ok: false, reason: "missing" }
      try {
        const claims = Claims.parse(jwt.verify(token, key, options))
        return { ok: true, identity: identityOf(claims) }
      } catch (error) {
        return { ok: false, reason: error instanceof jwt.TokenExpiredError ? "expired" : "invalid" }
      }
    },
  }
}

function identityOf(claims: z.infer<typeof Claims>): Identity {
  const set = (ids: string[] | undefined) => (ids === undefined ? null : new Set(ids))
  return {
    user: claims.sub ?? (claims.user_id as string),
    admin: claims.role === "admin" || claims.is_staff === true,
    rights: {
      committees: set(claims.committees),
      elections: set(claims.elections),
      channels: set(claims.channels),
    },
    expiresAt: (claims.exp + LEEWAY_SECONDS) * 1_000,
  }
}

function verificationKey(settings: Pick<Settings, "JWT_SECRET" | "JWT_PUBLIC_KEY">): {
  key: string | KeyObject
  algorithm: jwt.Algorithm
} {
  if (settings.JWT_SECRET !== undefined) return { key: settings.JWT_SECRET, algorithm: "HS256" }
  if (settings.JWT_PUBLIC_KEY === undefined) {
    throw new ConfigError(
      "JWT_SECRET (--jwt-secret) is missing: set it, or JWT_PUBLIC_KEY, to what your tokens are signed with",
    )
  }
  const key = publicKey(settings.JWT_PUBLIC_KEY)
  if (key.asymmetricKeyType === "rsa") {
    // RFC 7518, section 3.3.
    if ((key.asymmetricKeyDetails?.modulusLength ?? 0) < 2_048)
      throw new ConfigError(
        "JWT_PUBLIC_KEY (--jwt-public-key) is wrong: an RSA key must have 2048 bits or more",
      )
    return { key, algorithm: "RS256" }
  }
  if (key.asymmetricKeyType === "ec" && key.asymmetricKeyDetails?.namedCurve === "prime256v1")
    return { key, algorithm: "ES256" }
  throw new ConfigError("JWT_PUBLIC_KEY (--jwt-public-key) is wrong: it must be an RSA key or a P-256 key")
}

function publicKey(pem: string): KeyObject {
  if (pem.includes("PRIVATE KEY"))
    throw new ConfigError(
      "JWT_PUBLIC_KEY (--jwt-public-key) is wrong: it is a private key, and the relay needs the public key only",
    )
  try {
    return createPublicKey(pem.replaceAll("\\n", "\n"))
  } catch (cause) {
    throw new ConfigError("JWT_PUBLIC_KEY (--jwt-public-key) is wrong: it is not a PEM public key", { cause })
  }
}

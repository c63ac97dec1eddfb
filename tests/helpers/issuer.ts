/** An issuer of tokens: signs them, and publishes its keys over HTTP, well or badly. */

import { generateKeyPairSync, type JsonWebKey, type KeyObject } from "node:crypto"
import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import jwt from "jsonwebtoken"
import type { Test } from "tap"

export const ISSUER = "https://issuer.example"
export const AUDIENCE = "relay"

/** A pair of keys of the issuer. */
export interface Pair {
  kid: string
  algorithm: "RS256" | "ES256"
  privateKey: KeyObject
  publicKey: KeyObject
}

export function makePair(kid: string, algorithm: Pair["algorithm"] = "ES256"): Pair {
  const keys =
    algorithm === "ES256"
      ? generateKeyPairSync("ec", { namedCurve: "P-256" })
      : generateKeyPairSync("rsa", { modulusLength: 2048 })
  return { kid, algorithm, ...keys }
}

/** A key as issuers publish it. */
export const jwkOf = ({ kid, algorithm, publicKey }: Pair): JsonWebKey => ({
  ...publicKey.export({ format: "jwk" }),
  kid,
  alg: algorithm,
  use: "sig",
})

/** A token of the issuer for the relay. */
export const issue = (
  { kid, algorithm, privateKey }: Pair,
  claims: Record<string, unknown> = {},
  header: Record<string, unknown> = {},
): string =>
  jwt.sign(
    { sub: "7", iss: ISSUER, aud: AUDIENCE, exp: Math.floor(Date.now() / 1_000) + 3_600, ...claims },
    privateKey,
    { algorithm, header: { alg: algorithm, kid, ...header } },
  )

export interface Issuer {
  /** What makes a relay take its tokens. */
  settings: Record<string, string>
  /** What is published; the next answer has it. */
  keys: JsonWebKey[]
  /** Answers in place of the keys. */
  answer: ((response: ServerResponse) => void) | undefined
  /** How often it was asked. */
  asked(): number
  /** Begins to listen, where it did not from the start. */
  listen(): Promise<void>
}

/** Starts one with these keys; stopped with the test. @param port where it will listen, if it does not yet. */
export async function startIssuer(t: Test, pairs: Pair[], port?: number): Promise<Issuer> {
  let asked = 0
  const server = createServer((_request, response) => {
    asked++
    if (issuer.answer !== undefined) return issuer.answer(response)
    response.setHeader("content-type", "application/json").end(JSON.stringify({ keys: issuer.keys }))
  })
  const listen = () => new Promise<void>((resolve) => server.listen(port ?? 0, "127.0.0.1", resolve))
  if (port === undefined) await listen()
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const issuer: Issuer = {
    settings: {
      JWT_SECRET: "",
      JWKS_URL: `http://127.0.0.1:${port ?? (server.address() as AddressInfo).port}/jwks`,
      JWT_ISSUER: ISSUER,
      JWT_AUDIENCE: AUDIENCE,
    },
    keys: pairs.map(jwkOf),
    answer: undefined,
    asked: () => asked,
    listen,
  }
  return issuer
}

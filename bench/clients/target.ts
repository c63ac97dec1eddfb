/** What a load generator must know to be a client of a server. */

export interface Target {
  host: string
  port: number
  /** Client n takes the path n modulo their number. */
  paths: string[]
  headers: Record<string, string>
  /** The first bytes of a frame that says that the client is in; without it the upgrade does. */
  ready?: string | undefined
  /** The first bytes of each frame that counts. */
  event: string
  /** What a client must say to frames that begin so. */
  answers?: Array<{ to: string; say: string }>
}

/** Ends the head of an answer. */
export const HEAD_END = Buffer.from("\r\n\r\n")

/** The request with which a client comes. */
export function upgradeOf({ host, port, headers }: Target, path: string): string {
  const all = {
    Host: `${host}:${port}`,
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    ...headers,
  }
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  return `GET ${path} HTTP/1.1\r\n${lines.join("")}\r\n`
}

/** The status of an answer that has a head. */
export const statusOf = (head: Buffer): string => head.toString("latin1", 9, 12)

const MASK = Buffer.from([1, 2, 3, 4])

/** A short frame as a client sends it. @param payload of 125 bytes at most. */
export function frameOf(opcode: number, payload: Buffer): Buffer {
  const masked = payload.map((byte, i) => byte ^ (MASK[i % 4] as number))
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | payload.length]), MASK, masked])
}

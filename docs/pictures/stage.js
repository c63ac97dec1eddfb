/** The stage of the moving picture: a terminal over a screen, and what has been seen of them so far. */

import { Encoder } from "modern-gif"

const encoder = new Encoder({ width: innerWidth, height: innerHeight, maxColors: 128 })

globalThis.stage = {
  async show(text, screen) {
    document.querySelector("#terminal").textContent = text
    const image = document.querySelector("#screen")
    image.src = `data:image/png;base64,${screen}`
    await image.decode()
  },
  async keep(picture, delay) {
    await encoder.encode({ data: `data:image/png;base64,${picture}`, delay })
  },
  async encode() {
    const bytes = new Uint8Array(await encoder.flush("arrayBuffer"))
    let text = ""
    for (const byte of bytes) text += String.fromCharCode(byte)
    return btoa(text)
  },
}

/** What the browser says of its network and of the page. Where there is no browser, there is a network and a page to see. */

interface Target {
  addEventListener(type: string, listener: () => void): void
  removeEventListener(type: string, listener: () => void): void
}

/** `window`, `document` and `navigator`, as far as they are there. */
export interface Page {
  window?: Target | undefined
  document?: (Target & { readonly visibilityState: string }) | undefined
  navigator?: { readonly onLine?: boolean } | undefined
}

export type PageEvent = "online" | "offline" | "visible" | "hidden" | "pagehide" | "pageshow"

export interface PageWatch {
  online(): boolean
  visible(): boolean
  stop(): void
}

/** The page that this runs in. */
export function thisPage(): Page {
  const here = globalThis as {
    addEventListener?: unknown
    document?: Page["document"]
    navigator?: Page["navigator"]
  }
  const window = typeof here.addEventListener === "function" ? (here as unknown as Target) : undefined
  return { window, document: here.document, navigator: here.navigator }
}

export function watchPage({ window, document, navigator }: Page, on: (event: PageEvent) => void): PageWatch {
  const visible = () => document === undefined || document.visibilityState === "visible"
  const heard: Array<[Target | undefined, string, () => void]> = [
    ...(["online", "offline", "pagehide", "pageshow"] as const).map(
      (type): [Target | undefined, string, () => void] => [window, type, () => on(type)],
    ),
    [document, "visibilitychange", () => on(visible() ? "visible" : "hidden")],
  ]
  for (const [target, type, listener] of heard) target?.addEventListener(type, listener)
  return {
    online: () => navigator?.onLine !== false,
    visible,
    stop() {
      for (const [target, type, listener] of heard) target?.removeEventListener(type, listener)
    },
  }
}
